"""A newsletter, its mailer and its archive on the bus, and no saga."""
