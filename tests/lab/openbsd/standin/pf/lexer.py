"""The words of pf.conf(5): quoting, comments, continued lines, macros and included files; contract 3.2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["word", "string", "number", "op", "newline", "eof", "error"]

_NO_WORD = frozenset("(){}<>!=/#,")
_ENDS_NUMBER = frozenset("),/}=")
_PAIRS = {"!=", "<>", "<=", "><", ">=", "->"}


@dataclass(frozen=True)
class Token:
    """A word of a file; `string` is a quoted one, which is never a keyword."""

    kind: Kind
    text: str
    file: str
    line: int


class _Source:
    """What is left of one file."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self.at = 0
        self.line = 1


class Lexer:
    """Reads the words of a file and of those it includes.

    Args:
        name: the file's name, as messages give it.
        text: what it contains.
        macros: name and text of the macros that are known before its first line.
    """

    def __init__(self, name: str, text: str, macros: dict[str, str]) -> None:
        self._sources = [_Source(name, text)]
        self.macros = macros
        self._pending: list[Token] = []

    def include(self, name: str, text: str) -> None:
        """Read another file's words first, then go on."""
        self._sources.append(_Source(name, text))

    def next(self) -> Token:
        """Return the next word; after the last one, `eof` for ever."""
        while not self._pending:
            self._read()
        return self._pending.pop(0)

    def _peek(self) -> str:
        """Return the next character; a backslash before a newline continues the line, in comments too."""
        source = self._sources[-1]
        while source.text.startswith("\\\n", source.at):
            source.at += 2
            source.line += 1
        return source.text[source.at : source.at + 1]

    def _take(self) -> str:
        found = self._peek()
        self._sources[-1].at += len(found)
        return found

    def _give(self, kind: Kind, text: str) -> None:
        source = self._sources[-1]
        self._pending.append(Token(kind, text, source.name, source.line))

    def _read(self) -> None:
        char = self._take()
        while char in {" ", "\t", "\r"}:
            char = self._take()
        if char == "#":
            while self._peek() not in {"", "\n"}:
                self._take()
            char = self._take()
        if not char:
            self._end()
        elif char == "\n":
            self._give("newline", "\n")
            self._sources[-1].line += 1
        elif char == "$":
            self._macro()
        elif char in {'"', "'"}:
            self._quoted(char)
        elif char.isalnum() or char in {":", "_"} or (char == "-" and self._peek().isdigit()):
            self._word(char)
        else:
            self._give("op", char + (self._take() if char + self._peek() in _PAIRS else ""))

    def _end(self) -> None:
        if len(self._sources) > 1:
            self._sources.pop()
        else:
            self._give("eof", "")

    def _macro(self) -> None:
        name = ""
        while self._peek().isalnum() or self._peek() == "_":
            name += self._take()
        if name not in self.macros:
            self._give("error", f"macro '{name}' not defined")
            return
        source = self._sources[-1]
        # As text, so that `$ext:network` is one word; a macro in the text of another stays what it is.
        value = self.macros[name].replace("$", "\0")
        source.text = source.text[: source.at] + value + source.text[source.at :]

    def _quoted(self, quote: str) -> None:
        text = ""
        while (char := self._take()) != quote:
            if not char:
                self._give("error", "unterminated quoted string")
                return
            if char == "\n":
                self._sources[-1].line += 1
                continue
            if char == "\\" and self._peek() in {quote, " ", "\t"}:
                char = self._take()
            text += char
        self._give("string", text)

    def _word(self, first: str) -> None:
        text = first
        while (char := self._peek()) and not char.isspace() and char not in _NO_WORD and char.isprintable():
            text += self._take()
        ends = not char or char.isspace() or char in _ENDS_NUMBER
        self._give("number" if text.lstrip("-").isdigit() and ends else "word", text)
