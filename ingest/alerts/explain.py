"""Say in words what a configuration of the alerts means."""

from collections.abc import Iterator

from ingest.alerts.configuration import Channel, Configuration, Email, Policy

_KINDS = {"slack": "Slack", "email": "e-mail", "webhook": "a signed webhook", "apprise": "apprise"}


def explain(configuration: Configuration) -> Iterator[str]:
    """Yield a sentence for each thing that the configuration decides. No secret is read."""
    if not configuration.channels:
        yield "There is no channel: alerts are shown in the console, and nobody is told."
    for name, channel in configuration.channels.items():
        yield f"The channel {name} is {channel_in_words(channel)}."
    yield (
        f"An alert is told once in {configuration.throttle_s:g} s at most;"
        f" {_reminders(configuration)}."
    )
    yield {
        "rule": "Alerts of one rule that come together make one message.",
        "all": "Alerts that come together make one message.",
        "none": "Each alert makes a message of its own.",
    }[configuration.grouping]
    if configuration.quiet is not None:
        quiet = configuration.quiet
        yield (
            f"From {quiet.begin:%H:%M} to {quiet.end:%H:%M} ({quiet.zone}) only what is urgent is"
            " told; the rest afterwards, if it still holds."
        )
    if configuration.heartbeat is not None:
        yield (
            f"The address in {configuration.heartbeat.url_reference} is asked every"
            f" {configuration.heartbeat.every_s:g} s while the rules are evaluated."
        )
    yield from map(_policy, configuration.policies.values())


def channel_in_words(channel: Channel) -> str:
    """Return the kind of a channel and what it is told. No secret is in it."""
    if isinstance(channel, Email):
        how = f" to {', '.join(channel.to)} by {channel.host}:{channel.server_port}"
        how += ", without TLS" if channel.tls == "none" else f", {channel.tls.upper()}"
    else:
        how = f", its address in {channel.url_reference}"
    rules = f"the rules {', '.join(channel.rules)}" if channel.rules else "all rules"
    urgent = ", only what is urgent" if channel.urgent_only else ""
    return f"{_KINDS[channel.kind]}{how}; it is told {rules}{urgent}"


def _reminders(configuration: Configuration) -> str:
    if not configuration.remind_s:
        return "what still fires is not told again"
    return (
        f"what still fires, and nobody has acknowledged, is told again after"
        f" {configuration.remind_s:g} s"
    )


def _policy(policy: Policy) -> str:
    if not policy.enabled:
        return f"{policy.rule.slug} is off."
    values = [f"{name} {value:.12g}" for name, value in policy.thresholds.items()]
    values += [f"for {policy.for_s:g} s", f"recovers after {policy.recover_for_s:g} s"]
    urgency = "urgent" if policy.urgent else "not urgent"
    return f"{policy.rule.slug} ({urgency}): {', '.join(values)}."
