"""A model of the protocol, every state of which is looked at.

`protocol` says what each party may do next, `explore` visits every state that this leads to, and
`histories` holds what really happened against it.
"""
