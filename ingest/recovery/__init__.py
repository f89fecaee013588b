"""Ask senders again for the deliveries that they gave up."""
