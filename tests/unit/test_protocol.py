"""The RPC's framing, its envelopes and all its structs, with hostile input."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import inspect

from workerd import errors, protocol
from workerd.job import JobSpec
from workerd.protocol import (
    METHODS,
    ErrorObject,
    FdCount,
    JobParams,
    Request,
    Response,
    decode_params,
    decode_request,
    encode,
    encode_error,
    encode_result,
    error_from,
    recover_id,
    split_batch,
)

DEEP = 100_000
# The same examples every time, and no verdict on how quickly this machine makes them.
MANY = settings(derandomize=True, max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
FEW = settings(MANY, max_examples=15)


def line(method: str = "job.status", params: str | bytes = '{"id":"a1"}', request_id: str | bytes = "1") -> bytes:
    as_bytes = [part.encode() if isinstance(part, str) else part for part in (method, params, request_id)]
    return b'{"jsonrpc":"2.0","method":"%s","params":%s,"id":%s}' % tuple(as_bytes)


class TestEnvelope:
    def test_a_request_has_its_method_params_and_id(self) -> None:
        request = decode_request(line())
        assert (request.method, request.id) == ("job.status", 1)
        assert decode_params(request) == JobParams("a1")

    @pytest.mark.parametrize(
        ("written", "request_id"), [("1", 1), ('"x"', "x"), ("null", None), ("-5", -5), ("0", 0), ('""', "")]
    )
    def test_ids_are_numbers_strings_or_null(self, written: str, request_id: protocol.RequestId) -> None:
        assert decode_request(line(request_id=written)).id == request_id

    def test_without_an_id_it_is_a_notification(self) -> None:
        assert decode_request(b'{"jsonrpc":"2.0","method":"x"}').id is msgspec.UNSET

    def test_params_may_be_absent(self) -> None:
        assert (
            decode_params(decode_request(b'{"jsonrpc":"2.0","method":"daemon.info","id":1}')) == protocol.InfoParams()
        )

    @pytest.mark.parametrize(
        "data",
        [
            b"5",
            b"null",
            b'"x"',
            b"{}",
            b'{"jsonrpc":"2.0","id":1}',
            b'{"method":"x","id":1}',
            b'{"jsonrpc":"1.0","method":"x","id":1}',
            b'{"jsonrpc":"2.0\\n","method":"x","id":1}',
            b'{"jsonrpc":2.0,"method":"x","id":1}',
            b'{"jsonrpc":"2.0","method":1,"id":1}',
            b'{"jsonrpc":"2.0","method":"x","id":1,"extra":1}',
            line(request_id="1.5"),
            line(request_id="true"),
            line(request_id="[]"),
        ],
    )
    def test_json_that_is_no_request_is_invalid(self, data: bytes) -> None:
        with pytest.raises(errors.InvalidRequest):
            decode_request(data)

    @pytest.mark.parametrize(
        "data",
        [b"", b" ", b"{", b"{]", b"hello", b"\xef\xbb\xbf{}", line() + b" x", line()[:-1], b"'a'", b"\0", b"\xff"],
    )
    def test_what_is_not_json_is_a_parse_error(self, data: bytes) -> None:
        with pytest.raises(errors.ParseError):
            decode_request(data)

    def test_an_unknown_method_is_told_from_wrong_params(self) -> None:
        with pytest.raises(errors.MethodNotFound, match=r"no method 'job\.fly'"):
            decode_params(decode_request(line("job.fly")))
        with pytest.raises(errors.InvalidParams):
            decode_params(decode_request(line("job.status", '{"id":5}')))

    @pytest.mark.parametrize(
        "params", ["[]", '["a1"]', "null", '"a1"', "5", "{}", '{"id":"a1","extra":1}', '{"id":""}']
    )
    def test_params_of_another_shape_are_invalid(self, params: str) -> None:
        with pytest.raises(errors.InvalidParams):
            decode_params(decode_request(line(params=params)))


class TestRecoverId:
    @pytest.mark.parametrize(
        ("data", "request_id"),
        [
            (b'{"jsonrpc":"1.0","method":"x","id":7}', 7),
            (b'{"method":5,"id":"seven"}', "seven"),
            (b'{"jsonrpc":"2.0","method":"x","id":7,"extra":[{}]}', 7),
            (b'{"id":7}', 7),
            (line(request_id="1.5"), None),
            (b"[1]", None),
            (b"5", None),
            (b'{"id":7', None),
            (b"\xff", None),
            (b"", None),
        ],
    )
    def test_finds_it_where_it_can_be_had(self, data: bytes, request_id: protocol.RequestId) -> None:
        assert recover_id(data) == request_id


class TestBatch:
    def test_a_single_request_is_none(self) -> None:
        assert split_batch(line()) is None
        assert split_batch(b"") is None
        assert split_batch(b"hello") is None

    @pytest.mark.parametrize("space", [b"", b" ", b"\t", b"\r", b"  \t"])
    def test_members_are_kept_apart_whatever_they_are(self, space: bytes) -> None:
        members = split_batch(space + b"[" + line() + b',5,{"id":9}]')
        assert members is not None
        assert [bytes(member) for member in members] == [line(), b"5", b'{"id":9}']
        assert decode_request(members[0]).id == 1
        assert recover_id(members[2]) == 9
        with pytest.raises(errors.InvalidRequest):
            decode_request(members[1])

    def test_an_empty_one_is_an_invalid_request(self) -> None:
        with pytest.raises(errors.InvalidRequest, match="empty"):
            split_batch(b"[]")

    @pytest.mark.parametrize(
        "data", [b"[", b"[1,", b"[1]x", b"[\xff]", b"[NaN]", b"[" * DEEP, b"[" * DEEP + b"]" * DEEP]
    )
    def test_a_broken_one_is_a_parse_error(self, data: bytes) -> None:
        with pytest.raises(errors.ParseError):
            split_batch(data)


def outcome(data: bytes) -> str:
    """How a line of a client ends: the kind of its error, or "ok". Nothing else may be raised."""
    try:
        members = split_batch(data)
        for member in [data] if members is None else members:
            recover_id(member)
            decode_params(decode_request(member))
    except errors.WorkerError as error:
        return error.kind
    return "ok"


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = st.sampled_from(["id", "method", "params", "jsonrpc", "spec", "argv", "env"]) | st.text()
    return st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4)


RUN = '{"spec":{"argv":["x"],"limits":{%s}}}'


class TestHostile:
    @pytest.mark.parametrize(
        ("data", "kind"),
        [
            pytest.param(line(params='{"id":NaN}'), "parse-error", id="NaN"),
            pytest.param(line(params='{"id":-Infinity}'), "parse-error", id="-Infinity"),
            pytest.param(line(request_id="NaN"), "parse-error", id="NaN as id"),
            pytest.param(line(params='{"id":"\\ud800"}'), "parse-error", id="lone surrogate"),
            pytest.param(line(params='{"id":"\\udc00\\ud800"}'), "parse-error", id="surrogates in the wrong order"),
            pytest.param(line("\\ud800"), "parse-error", id="lone surrogate as method"),
            pytest.param(line(request_id='"\\ud800"'), "parse-error", id="lone surrogate as id"),
            pytest.param(line(params='{"id":"\\ud83d\\ude00"}'), "ok", id="surrogate pair"),
            pytest.param(line(params=b'{"id":"\xff"}'), "invalid-params", id="not UTF-8 in params"),
            pytest.param(line(params=b'{"id":"\xed\xa0\x80"}'), "invalid-params", id="surrogate in UTF-8"),
            pytest.param(line(params=b'{"\xff":1}'), "invalid-params", id="not UTF-8 in a key"),
            pytest.param(line(request_id=b'"\xff"'), "parse-error", id="not UTF-8 in the id"),
            pytest.param(line(params='{"id":"\x00"}'), "parse-error", id="raw NUL"),
            pytest.param(line(params="[" * DEEP + "]" * DEEP), "parse-error", id="nested arrays"),
            pytest.param(line(params='{"a":' * DEEP + "1" + "}" * DEEP), "parse-error", id="nested objects"),
            pytest.param(line(params="[" * DEEP), "parse-error", id="open arrays"),
            pytest.param(b'{"a":' * DEEP, "invalid-request", id="nested envelopes"),
            pytest.param(line(request_id="[" * DEEP + "]" * DEEP), "invalid-request", id="nested id"),
            pytest.param(line(request_id="9" * 5000), "invalid-request", id="5000 digits as id"),
            pytest.param(
                line("output.wait", '{"id":"a","offset":%s}' % ("9" * 5000)), "invalid-params", id="5000 digits"
            ),
            pytest.param(line("job.run", RUN % f'"memory":{"9" * 30}'), "invalid-params", id="30 digits"),
            pytest.param(line("job.run", RUN % f'"cpus":{"9" * 5000}'), "invalid-params", id="5000 digits, float"),
            pytest.param(line("job.run", RUN % '"cpus":1e999'), "invalid-params", id="1e999"),
            pytest.param(line("job.run", RUN % '"cpus":-0.0'), "invalid-params", id="-0.0"),
            pytest.param(line("job.run", '{"spec":{"argv":["x"]},"fds":17}'), "invalid-params", id="too many fds"),
            pytest.param(line("job.wait", '{"ids":[]}'), "invalid-params", id="no ids"),
            pytest.param(line("job.wait", json.dumps({"ids": ["a"] * 10_001})), "invalid-params", id="10,001 ids"),
        ],
    )
    def test_is_one_clear_error_and_quick(self, data: bytes, kind: str) -> None:
        begun = time.process_time()
        assert outcome(data) == kind
        assert time.process_time() - begun < 0.5

    def test_is_not_told_back_in_full(self) -> None:
        long = b"x" * 100_000
        spec = b'{"spec":{"argv":["x"],"net":"%s"}}' % long
        for data in (b'{"jsonrpc":"%s","method":"x","id":1}' % long, line("job.run", spec)):
            with pytest.raises(errors.WorkerError) as caught:
                decode_params(decode_request(data))
            assert len(caught.value.message) < 1000

    def test_of_a_key_given_twice_the_last_counts_everywhere(self) -> None:
        data = b'{"jsonrpc":"2.0","id":1,"method":"x","method":"job.status","params":{"id":"a","id":"b"},"id":2}'
        request = decode_request(data)
        assert (request.id, recover_id(data), decode_params(request)) == (2, 2, JobParams("b"))

    def test_an_error_quotes_no_more_than_a_little_of_the_request(self) -> None:
        with pytest.raises(errors.InvalidParams) as caught:
            decode_params(decode_request(line(params='{"id":"%s"}' % ("x" * 100_000))))
        assert len(caught.value.message) < 200

    @given(st.binary(max_size=200))
    @MANY
    def test_any_bytes_are_an_error_of_ours_or_none(self, data: bytes) -> None:
        outcome(data)

    @given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), nested))
    @MANY
    def test_any_json_is_an_error_of_ours_or_none(self, value: Any) -> None:
        for data in (json.dumps(value), json.dumps({"jsonrpc": "2.0", "method": "job.run", "params": value, "id": 1})):
            outcome(data.encode())

    @given(st.data())
    @MANY
    def test_a_request_with_some_bytes_changed_is_an_error_of_ours_or_none(self, data: st.DataObject) -> None:
        changed = bytearray(line("job.run", '{"spec":{"argv":["sh","-c","x"],"limits":{"cpus":0.5}},"env":{"A":"b"}}'))
        for _ in range(data.draw(st.integers(1, 4))):
            changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
        outcome(bytes(changed))


def instances(of: inspect.Type) -> st.SearchStrategy[Any]:
    """Values of a type as msgspec describes it, within its bounds."""
    match of:
        case inspect.StructType():
            fields = {field.name: instances(field.type) for field in of.fields}
            return st.builds(of.cls, **fields)
        case inspect.UnionType():
            return st.one_of([instances(member) for member in of.types])
        case inspect.IntType():
            return st.integers(of.ge if of.ge is not None else -(2**63), of.le if of.le is not None else 2**63 - 1)
        case inspect.FloatType():
            return st.floats(0.001, of.le or 1e9)
        case inspect.StrType() if of.pattern is not None:
            most = of.max_length or 100
            return st.from_regex(of.pattern, fullmatch=True).filter(lambda text: len(text) <= most)
        case inspect.StrType():
            # Surrogates alone are no Unicode text; the decoder refuses them.
            return st.text(st.characters(exclude_categories=["Cs"]), min_size=of.min_length or 0, max_size=20)
        case inspect.VarTupleType():
            return st.lists(instances(of.item_type), min_size=of.min_length or 0, max_size=2).map(tuple)
        case inspect.DictType():
            return st.dictionaries(instances(of.key_type), instances(of.value_type), max_size=3)
        case inspect.EnumType():
            return st.sampled_from(of.cls)
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.BytesType():
            return st.binary(max_size=50)
    raise NotImplementedError(f"{of}: teach the test about it")


class TestMethods:
    def test_names_are_noun_and_verb_with_a_sentence_on_each(self) -> None:
        for name, method in METHODS.items():
            noun, verb = name.split(".")
            assert noun.isalpha() and verb.isalpha()
            assert method.doc.endswith(".")

    @pytest.mark.parametrize("name", METHODS)
    @given(data=st.data())
    @FEW
    def test_params_arrive_as_they_were_sent(self, name: str, data: st.DataObject) -> None:
        params = data.draw(instances(inspect.type_info(METHODS[name].params)))
        sent = encode({"jsonrpc": "2.0", "method": name, "params": params, "id": 1})
        assert sent.count(b"\n") == 1 and sent.endswith(b"\n")
        assert decode_params(decode_request(sent)) == params

    @pytest.mark.parametrize("name", METHODS)
    @given(data=st.data())
    @FEW
    def test_results_arrive_as_they_were_sent(self, name: str, data: st.DataObject) -> None:
        result = data.draw(instances(inspect.type_info(METHODS[name].result)))
        sent = encode_result("x", result)
        assert sent.count(b"\n") == 1 and sent.endswith(b"\n")
        answer = msgspec.json.decode(sent, type=Response)
        assert answer.id == "x"
        assert isinstance(answer.result, msgspec.Raw)
        assert msgspec.json.decode(answer.result, type=METHODS[name].result) == result

    @pytest.mark.parametrize("name", METHODS)
    def test_unknown_params_are_refused_at_every_depth(self, name: str) -> None:
        with pytest.raises(errors.InvalidParams):
            decode_params(decode_request(line(name, '{"no_such_param":1}')))

    def test_the_fds_of_a_message_can_be_told_without_its_method(self) -> None:
        params = encode(protocol.RunParams(spec=JobSpec(argv=("x",)), fds=1, stdin=True))
        assert msgspec.json.decode(params, type=FdCount).fds == 1
        assert msgspec.json.decode(b"{}", type=FdCount).fds == 0


class TestAnswers:
    def test_a_result_has_no_error_and_an_error_no_result(self) -> None:
        assert json.loads(encode_result(1, protocol.InfoParams())) == {"id": 1, "jsonrpc": "2.0", "result": {}}
        assert json.loads(encode_error(None, errors.ParseError("not JSON"))) == {
            "id": None,
            "jsonrpc": "2.0",
            "error": {"code": -32700, "message": "not JSON", "data": {"kind": "parse-error"}},
        }

    @pytest.mark.parametrize("made", sorted(errors.BY_KIND.values(), key=str))
    def test_each_error_comes_back_as_its_own_class_with_its_data(self, made: type[errors.WorkerError]) -> None:
        sent = encode_error(1, made("what to do", id="a1", errno=2))
        answer = msgspec.json.decode(sent, type=Response).error
        assert isinstance(answer, ErrorObject)
        assert answer.code == made.code
        back = error_from(answer)
        assert (type(back), back.message, back.data) == (made, "what to do", {"id": "a1", "errno": 2})

    def test_an_error_of_a_later_version_is_still_an_error(self) -> None:
        back = error_from(ErrorObject(-32050, "new", {"kind": "from-the-future", "x": 1}))
        assert (type(back), back.message) == (errors.WorkerError, "new")
        assert type(error_from(ErrorObject(-1, "bare"))) is errors.WorkerError

    def test_a_newline_in_a_value_does_not_end_the_line(self) -> None:
        assert encode({"a": "x\ny"}).count(b"\n") == 1

    def test_what_a_request_is_can_be_encoded_by_a_client(self) -> None:
        sent = encode(Request("2.0", "job.status", msgspec.Raw(b'{"id":"a1"}'), 5))
        assert decode_request(sent).id == 5


class TestErrorsOnTheWire:
    def test_message_that_quotes_a_lone_surrogate_is_sent(self) -> None:
        line = protocol.encode_error(1, errors.NoSuchJob("no such job: \ud800", id="\ud800"))
        answer = msgspec.json.decode(line, type=protocol.Response)
        assert answer.error is not msgspec.UNSET
        assert answer.error.message == "no such job: \\ud800"

    def test_data_may_hold_any_key(self) -> None:
        error = protocol.error_from(protocol.ErrorObject(-32000, "x", {"kind": "no-such-job", "message": 1, "self": 2}))
        assert isinstance(error, errors.NoSuchJob)
        assert error.data == {"message": 1, "self": 2}

    def test_internal_error_keeps_its_class(self) -> None:
        assert errors.BY_KIND["internal-error"] is errors.InternalError

    def test_offset_is_bounded(self) -> None:
        line = b'{"jsonrpc":"2.0","id":1,"method":"output.wait","params":{"id":"a","offset":1%s}}' % (b"0" * 30)
        with pytest.raises(errors.InvalidParams):
            protocol.decode_params(protocol.decode_request(line))
