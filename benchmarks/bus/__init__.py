"""The bus beside raw aio-pika and other libraries, doing the same work with the same guarantees."""
