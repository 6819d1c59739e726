import pytest

from emu.errors import BadCommandLine
from emu.kexec.cmdline import NOT_GIVEN, GuestResults, parse_command_line, split_words
from emu.kexec.layout import Parsed
from emu.units import MIB


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", []),
        ("   ", []),
        ("a b=c", ["a", "b=c"]),
        ("\ta\n\v\f\rb ", ["a", "b"]),
        ('a="b c" d', ["a=b c", "d"]),
        ('"a b" c', ["a b", "c"]),
        ('"a=b c" d', ["a=b c", "d"]),
        ('a=b"c d"e', ['a=b"c d"e']),
        ('a="b', ["a=b"]),
        ('a="', ["a="]),
        ('"', [""]),
        ('""', [""]),
        ("=a", ["=a"]),
        ("=a=b", ["=a=b"]),
        ("a=b=c", ["a=b=c"]),
        ('a"b c"', ['a"b c"']),
        ("--", ["--"]),
    ],
)
def test_words_and_quotes_are_those_of_next_arg(line: str, words: list[str]) -> None:
    assert [str(word) for word in split_words(line)] == words


def test_only_the_second_equals_sign_of_a_word_that_begins_with_one_separates() -> None:
    word = split_words("=a=b")[0]
    assert (word.param, word.value) == ("=a", "b")


def test_columns_count_from_1_in_the_line() -> None:
    words = split_words('ab  cd=ef "g=h i"')
    assert [(word.column, word.value_column) for word in words] == [(1, 1), (5, 8), (11, 14)]


def test_our_options_are_understood_and_the_rest_is_kept() -> None:
    parsed = parse_command_line("quiet kexec_jump=16M@16M root=/dev/sda jump_buf_pfn=0x3f0 seed=010")
    assert parsed.jump_buf_pfn == 0x3F0
    assert parsed.seed == 8
    assert parsed.target is not None
    assert parsed.target.offset == 16 * MIB
    assert [str(word) for word in parsed.unknown] == ["quiet", "root=/dev/sda"]
    assert parsed.notes == ()
    assert not parsed.plain_return


def test_the_option_inside_another_word_is_not_ours() -> None:
    parsed = parse_command_line("xkexec_jump=1 my.jump_buf_pfn=2 kexec_jumps=3")
    assert parsed.target is None
    assert parsed.jump_buf_pfn is None
    assert len(parsed.unknown) == 3


def test_the_word_ret_asks_for_a_plain_return_and_is_known() -> None:
    assert parse_command_line("ret").plain_return
    assert parse_command_line("ret").unknown == ()
    assert not parse_command_line("ret=1 return").plain_return


def test_of_repeated_options_the_last_wins_with_a_note() -> None:
    parsed = parse_command_line("jump_buf_pfn=1 kexec_jump=8M jump_buf_pfn=2 kexec_jump=16M@32M")
    assert parsed.jump_buf_pfn == 2
    assert parsed.target is not None
    assert parsed.target.offset == 32 * MIB
    assert len(parsed.notes) == 2
    assert "kexec_jump=8M is overridden by kexec_jump=16M@32M at column 45" in parsed.notes[0]


def test_the_plain_form_beats_a_later_high_or_low() -> None:
    parsed = parse_command_line("kexec_jump=8M@16M kexec_jump=16M,high")
    assert parsed.target is not None
    assert parsed.target.offset == 16 * MIB
    assert parsed.notes == ("column 19: kexec_jump=16M,high is overridden by kexec_jump=8M@16M at column 1",)


@pytest.mark.parametrize(
    ("line", "option", "column", "words"),
    [
        ("jump_buf_pfn=", "jump_buf_pfn=", 14, "number expected"),
        ("a jump_buf_pfn=x", "jump_buf_pfn=", 16, "number expected"),
        ("a jump_buf_pfn=12K", "jump_buf_pfn=", 18, "unrecognised 'K'"),
        ("jump_buf_pfn=08", "jump_buf_pfn=", 15, "unrecognised '8'"),
        ("jump_buf_pfn=0x10000000000000000", "jump_buf_pfn=", 14, "64 bits"),
        ("jump_buf_pfn", "jump_buf_pfn=", 1, "needs a value"),
        ("jump_buf_pfn=x jump_buf_pfn=1", "jump_buf_pfn=", 14, "number expected"),
        ("seed=-1", "seed=", 6, "number expected"),
        ('x "kexec_jump=4M y"', "kexec_jump=", 17, "unrecognised ' '"),
        ("kexec_jump=16M@", "kexec_jump=", 16, "an address expected"),
        ("kexec_jump=16M@x kexec_jump=16M", "kexec_jump=", 16, "an address expected"),
    ],
)
def test_malformed_values_name_option_and_column(line: str, option: str, column: int, words: str) -> None:
    with pytest.raises(BadCommandLine, match=words) as caught:
        parse_command_line(line)
    assert (caught.value.option, caught.value.column) == (option, column)


def test_2047_bytes_and_a_nul_fit_and_one_more_does_not() -> None:
    assert len(split_words("a" * 2047)) == 1
    with pytest.raises(BadCommandLine, match="do not fit 2048"):
        parse_command_line("a" * 2048)
    with pytest.raises(BadCommandLine, match="do not fit 2048"):
        parse_command_line("\u00e9" * 1024)


def test_a_nul_is_refused() -> None:
    with pytest.raises(BadCommandLine, match="NUL") as caught:
        parse_command_line("ab\0c")
    assert caught.value.column == 3


@pytest.mark.parametrize(
    ("line", "column"),
    [("elfcorehdr=", 12), ("elfcorehdr=1K@", 15), ("elfcorehdr=1K@2K@3K", 17), ("rounds=x", 8), ("elfcorehdr=4Kx", 14)],
)
def test_a_bad_value_of_a_hand_off_is_named_with_its_column(line: str, column: int) -> None:
    with pytest.raises(BadCommandLine) as raised:
        parse_command_line(line)
    assert raised.value.column == column


@pytest.mark.parametrize(
    ("line", "ram", "results"),
    [
        ("", 0, GuestResults(NOT_GIVEN, 0, 0, 0, 0)),
        ("kexec_jump=16M@16M jump_buf_pfn=5 seed=7 x y", 0, GuestResults(5, 16 * MIB, 16 * MIB, 7, 2)),
        ("kexec_jump=16M", 0, GuestResults(NOT_GIVEN, 0, 16 * MIB, 0, 0)),
        ("kexec_jump=0-:4M@32M", 64 * MIB, GuestResults(NOT_GIVEN, 32 * MIB, 4 * MIB, 0, 0)),
        ("kexec_jump=1G-:4M@32M", 64 * MIB, GuestResults(NOT_GIVEN, 0, 0, 0, 0)),
        (
            "kexec_jump_resume=0x20 kexec_jump_saved=0x30 kexec_jump_slot=0x38 elfcorehdr=16K@588K",
            0,
            GuestResults(NOT_GIVEN, 0, 0, 0, 0, resume=0x20, saved=0x30, slot=0x38, elfcorehdr=0x93000),
        ),
        (
            "rounds=3 reloads=2 poweroff save ret kexec_jump_back_entry=0x1000",
            0,
            GuestResults(NOT_GIVEN, 0, 0, 0, 0, rounds=3, reloads=2, words=7, back_entry=0x1000),
        ),
    ],
)
def test_results_can_be_compared_with_those_of_a_guest(line: str, ram: int, results: GuestResults) -> None:
    assert parse_command_line(line).guest_results(ram) == results
    assert len(results.qwords()) * 8 == Parsed.BYTES
    assert GuestResults.unpack(b"".join(value.to_bytes(8, "little") for value in results.qwords())) == results
