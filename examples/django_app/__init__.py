"""A shop on Django that tells a mailer of its orders, through an outbox in Django's own transaction."""
