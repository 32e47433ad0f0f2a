"""How much the tests try: what a change needs, or far more with HYPOTHESIS_PROFILE=deep."""

import os

from hypothesis import settings

#: Examples of a property that asks for nothing else, by profile.
EXAMPLES = {"ci": 40, "quick": 15, "deep": 2000}
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "ci")
DEEP = PROFILE == "deep"


def examples(number):
    """Ask for so many examples by default; in another profile for as many times more or fewer."""
    return settings(max_examples=max(number * EXAMPLES[PROFILE] // EXAMPLES["ci"], 3))
