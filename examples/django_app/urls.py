"""Orders over HTTP. Each request's rows and messages are one transaction of Django's."""

from __future__ import annotations

import json

from django.db import IntegrityError, connection, transaction
from django.http import HttpRequest, JsonResponse
from django.urls import path

from django_app.messages import OrderPaid, OrderPlaced
from django_app.models import Order
from messaging import BlockingBus

# Writing needs no broker, so this one never connects: `saga relay` sends.
bus = BlockingBus(name="shop")


def place(request: HttpRequest) -> JsonResponse:
    new = json.loads(request.body)
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            order = Order.objects.create(number=new["number"], customer=new["customer"])
            news = OrderPlaced(number=order.number, customer=order.customer)
            bus.publish(news, session=cursor, ordering_key=order.number)
    except IntegrityError:
        return JsonResponse({"error": f"order {new['number']} is there already"}, status=409)
    return JsonResponse({"number": order.number}, status=202)


def pay(_: HttpRequest, number: str) -> JsonResponse:
    with transaction.atomic(), connection.cursor() as cursor:
        order = Order.objects.select_for_update().get(number=number)
        order.paid = True
        order.save()
        bus.publish(OrderPaid(number=number, customer=order.customer), session=cursor, ordering_key=number)
    return JsonResponse({"number": number}, status=202)


urlpatterns = [path("orders", place), path("orders/<str:number>/payment", pay)]
