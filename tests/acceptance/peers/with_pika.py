"""A participant and subscriber with pika and a JSON parser: nothing of ours is installed beside it."""

import json
import os

import pika

PREFIX = os.environ["PREFIX"]
connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
channel = connection.channel()
channel.queue_declare(f"{PREFIX}payments", durable=True)
channel.exchange_declare(f"{PREFIX}events", "topic", durable=True)
channel.queue_declare(f"{PREFIX}audit", durable=True)
channel.queue_bind(f"{PREFIX}audit", f"{PREFIX}events", "order-closed")


def charge(channel, method, properties, body):  # noqa: ANN001, ANN201
    command = json.loads(body)
    if command["cents"] > 1000:
        headers = {"outcome": "failure", "error-code": "card-refused"}
        answer = {"reason": "too much", "limit_cents": 1000}
    else:
        headers, answer = {}, {"receipt": f"receipt of {command['order']}"}
    reply = pika.BasicProperties(correlation_id=properties.correlation_id, headers=headers)
    channel.basic_publish("", properties.reply_to, json.dumps(answer), reply)
    channel.basic_ack(method.delivery_tag)


def closed(channel, method, properties, body):  # noqa: ANN001, ANN201
    print("closed:", json.loads(body)["order"], flush=True)
    channel.basic_ack(method.delivery_tag)


channel.basic_consume(f"{PREFIX}payments", charge)
channel.basic_consume(f"{PREFIX}audit", closed)
print("peer is ready", flush=True)
channel.start_consuming()
