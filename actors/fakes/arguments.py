"""Which wires can be spoken, and what can be said on the command line."""

import argparse

from actors.fakes.switches import MENU

KINDS = {
    "openai": "actors.fakes.openai:OpenAI",
    "deepseek": "actors.fakes.openai:DeepSeek",
    "qwen": "actors.fakes.openai:Qwen",
    "vllm": "actors.fakes.openai:Vllm",
    "ollama-v1": "actors.fakes.openai:OllamaV1",
    "ollama": "actors.fakes.ollama:Ollama",
    "gemini": "actors.fakes.gemini:Gemini",
    "coze": "actors.fakes.coze:Coze",
}
"""The wires that can be spoken, and what speaks them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe what can be said on the command line."""
    parser.add_argument("kind", choices=sorted(KINDS), help="whose wire it speaks")
    parser.add_argument("--port", type=int, default=0, help="on loopback; any free one by default")
    parser.add_argument("--fault", default="", metavar="NAME", help="for every answer; a+b=1")
    parser.add_argument("--tokens", type=int, default=0, metavar="N", help="pieces of an answer")
    parser.add_argument("--rate", type=float, default=0, metavar="R", help="pieces per second")
    parser.add_argument("--text", default="", help="the answer; what was said by default")
    parser.add_argument("--model", action="append", default=[], help="one that there is; repeat")
    parser.epilog = "Faults: " + "; ".join(f"{name}: {text}" for name, text in MENU.items())
