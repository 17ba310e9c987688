"""What clients with gRPC core do, beside a watch on the same connection: prints what failed and ends with 1."""

import sys
import threading

import grpc

ADDRESS = sys.argv[1]
PORT = ADDRESS.rsplit(":", 1)[1]
TIMEOUT = 30


def same(message):
    return message


def varint(number):
    out = bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out + bytes([number]))


def number(field, value):
    return varint(field << 3) + varint(value)


def text(field, value):
    return varint(field << 3 | 2) + varint(len(value)) + value


class Client:
    def __init__(self, target, *options):
        # Not shared with the other targets of the process.
        local = ("grpc.use_local_subchannel_pool", 1)
        self.channel = grpc.insecure_channel(target, options=[local, *options])

    def unary(self, method):
        return self.channel.unary_unary("/etcdserverpb." + method, same, same)

    def stream(self, method, requests):
        return self.channel.stream_stream("/etcdserverpb." + method, same, same)(iter(requests), timeout=TIMEOUT)


class Requests:
    """The requests of a stream, which stays open until it is told to end."""

    def __init__(self, requests):
        self.requests, self.sent, self.over = requests, threading.Event(), threading.Event()

    def __iter__(self):
        yield from self.requests
        self.sent.set()
        self.over.wait(TIMEOUT)


def renewals(client, reads_late):
    client.unary("Lease/LeaseGrant")(number(1, 600) + number(2, 7), timeout=TIMEOUT)
    requests = Requests([number(1, 7)] * 10_000)
    answers = client.stream("Lease/LeaseKeepAlive", requests)
    if reads_late:
        assert requests.sent.wait(TIMEOUT)
    for _ in range(10_000):
        next(answers)
    requests.over.set()
    client.unary("Lease/LeaseRevoke")(number(1, 7), timeout=TIMEOUT)


def watches(client):
    streams = [Requests([text(1, text(1, b"other"))]) for _ in range(50)]
    for requests in streams:
        answers = client.stream("Watch/Watch", requests)
        answers.cancel()
        requests.over.set()


def cancelled(client):
    for _ in range(10):
        for call in [client.unary("KV/Range").future(text(1, b"a"), timeout=TIMEOUT) for _ in range(50)]:
            call.cancel()


def too_late(client):
    calls = [client.unary("KV/Range").future(text(1, b"a"), timeout=0.001) for _ in range(200)]
    for call in calls:
        assert call.code() in (grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED), call


def beside_a_watch(schedule):
    client = Client(ADDRESS)
    requests = Requests([text(1, text(1, b"k"))])
    watch = client.stream("Watch/Watch", requests)
    next(watch)
    schedule(client)
    client.unary("KV/Put")(text(1, b"k") + text(2, b"v"), timeout=TIMEOUT)
    next(watch)
    requests.over.set()


def called(target, *options):
    Client(target, *options).unary("KV/Range")(text(1, b"a"), timeout=TIMEOUT)


def named(name):
    return lambda: called(ADDRESS, ("grpc.default_authority", name))


CASES = {
    "renewals that are read at once": lambda: beside_a_watch(lambda client: renewals(client, False)),
    "renewals that are read later": lambda: beside_a_watch(lambda client: renewals(client, True)),
    "watches that are given up": lambda: beside_a_watch(watches),
    "reads that are given up": lambda: beside_a_watch(cancelled),
    "reads that are too late": lambda: beside_a_watch(too_late),
    "one address": lambda: called(f"ipv4:{ADDRESS}"),
    "several addresses": lambda: called(f"ipv4:{ADDRESS},{ADDRESS}"),
    "a name": lambda: called(f"dns:///localhost:{PORT}"),
    "a name with a slash": named("host:2379/"),
    "a URL": named("http://host:2379"),
    "a name with percent signs": named("host%2C:2379"),
    "a bare percent sign": named("100%"),
    "several names": named("1.2.3.4:1,5.6.7.8:2"),
    "a user": named("user:password@host:2379"),
    "brackets": named("#initially=[host:2379]"),
}

failed = False
for name, case in CASES.items():
    try:
        case()
    except Exception as error:  # Whatever it is, the others go on.
        failed = True
        print(f"{name}: {error}", flush=True)
sys.exit(failed)
