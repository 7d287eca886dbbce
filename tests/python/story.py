"""Create, look up and update an account through a client generated from proto/ with grpcio-tools.

Usage: story.py GENERATED_DIRECTORY HOST:PORT
"""

import os
import sys
import time
import uuid

if len(sys.argv) != 3:
    sys.exit(__doc__)
sys.path.insert(0, sys.argv[1])

import grpc
from google.protobuf import field_mask_pb2
from holdfast.v1 import account_pb2, account_service_pb2, account_service_pb2_grpc


def request_id() -> str:
    """A UUIDv7 (RFC 9562); Python's own uuid7 comes with 3.14."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))


def main() -> None:
    channel = grpc.insecure_channel(sys.argv[2])
    accounts = account_service_pb2_grpc.AccountServiceStub(channel)
    email = account_pb2.IDENTIFIER_KIND_EMAIL

    created = accounts.CreateAccount(
        account_service_pb2.CreateAccountRequest(
            parent="realms/default",
            account_id="snake",
            account=account_pb2.Account(
                display_name="Guido",
                identifiers=[account_pb2.Identifier(kind=email, value="Guido@Example.com", primary=True)],
            ),
            request_id=request_id(),
        ),
        timeout=10,
    )
    assert created.account.name == "realms/default/accounts/snake", created

    found = accounts.LookupAccount(
        account_service_pb2.LookupAccountRequest(
            parent="realms/default",
            identifier=account_pb2.IdentifierReference(kind=email, value="guido@example.com"),
        ),
        timeout=10,
    )
    assert found.account.display_name == "Guido", found

    updated = accounts.UpdateAccount(
        account_service_pb2.UpdateAccountRequest(
            account=account_pb2.Account(name=created.account.name, display_name="Guido van Rossum"),
            update_mask=field_mask_pb2.FieldMask(paths=["display_name"]),
            set_attributes={"pep": account_pb2.Attribute(int64_value=8)},
            etag=found.account.etag,
            request_id=request_id(),
        ),
        timeout=10,
    )
    assert updated.account.display_name == "Guido van Rossum", updated
    assert updated.account.attributes["pep"].int64_value == 8, updated
    assert updated.revision == created.revision + 1, updated

    try:
        accounts.GetAccount(account_service_pb2.GetAccountRequest(name="realms/default/accounts/nobody"), timeout=10)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND, error
    else:
        raise AssertionError("an account that was never created was found")
    print("created, found, updated")


if __name__ == "__main__":
    main()
