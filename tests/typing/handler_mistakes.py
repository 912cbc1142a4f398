"""Handler classes that type checkers refuse, each where the comment stands and nowhere else. Never imported.

Mypy refuses a wrong reply in the class already, pyright when it is registered; mypy then refuses it a second time.
"""
# pyright: strict

from messaging import Command, CommandHandler, Context, Event, EventHandler, Failure, Reply, Service


class Charged(Reply):
    charge: str = ""


class Refunded(Reply):
    refund: str = ""


class Charge(Command[Charged]):
    cents: int


class Refund(Command[Refunded]):
    refund_of: str


class Paid(Event):
    cents: int


class TakesAnotherCommand(CommandHandler[Charge]):
    async def handle(self, command: Refund, context: Context) -> Charged:  # refused
        return Charged()


class AnswersSomethingElse(CommandHandler[Charge]):
    async def handle(self, command: Charge, context: Context) -> Refunded | Failure:  # refused by mypy
        return Refunded()


class AnswersSomethingElseBlocking(CommandHandler[Charge]):
    def handle(self, command: Charge, context: Context) -> Refunded:  # refused by mypy
        return Refunded()


class TakesAnotherEvent(EventHandler[Paid]):
    async def handle(self, event: Charge, context: Context) -> None: ...  # refused


class WithoutContext(CommandHandler[Charge]):
    async def handle(self, command: Charge) -> Charged:  # refused
        return Charged()


class WithoutHandle(CommandHandler[Charge]): ...


class Right(CommandHandler[Charge]):
    async def handle(self, command: Charge, context: Context) -> Charged | Failure:
        return Charged()


class OfAnEvent(CommandHandler[Paid]):  # refused
    ...


service = Service("payments")
service.register(Right())
service.register(AnswersSomethingElse())  # refused
service.register(AnswersSomethingElseBlocking())  # refused
service.register(WithoutHandle())  # refused
service.register(Right)  # refused
