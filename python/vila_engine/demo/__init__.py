"""The demo: ten bundled examples, one's own picture, and a follow-up question, on the bundled model."""

from vila_engine.demo.examples import Example, load_examples
from vila_engine.demo.show import ask_own, bundled_model, run_examples

__all__ = ["Example", "ask_own", "bundled_model", "load_examples", "run_examples"]
