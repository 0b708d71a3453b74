"""Evaluation of a model on held-out questions: answers, scores with confidence intervals, a table and a chart."""

from vila_engine.evaluate.items import Item, load_items
from vila_engine.evaluate.runner import Answerer, evaluate

__all__ = ["Answerer", "Item", "evaluate", "load_items"]
