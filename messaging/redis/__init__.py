"""Redis Streams as a broker: `RedisTransport`."""

from messaging.redis.transport import RedisTransport

__all__ = ["RedisTransport"]
