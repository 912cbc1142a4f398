"""What tests share: services to test against, fresh databases, Node."""
