"""A shop on Flask that tells a warehouse of its orders, through an outbox."""
