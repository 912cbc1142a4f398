"""RabbitMQ as a transport: quorum queues, confirmed publishing in batches, consumers that survive."""

from messaging.rabbitmq.transport import RabbitTransport

__all__ = ["RabbitTransport"]
