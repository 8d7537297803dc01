"""Personas of the synthetic log, and the themes that they spend on."""

from dataclasses import dataclass

import numpy as np

CHANNELS = np.array(["chip", "contactless", "online", "atm", ""])
"""Payment channels. An empty channel is a missing one."""


@dataclass(frozen=True)
class Theme:
    """Merchant categories that belong together."""

    categories: tuple[str, ...]
    """Merchant categories, the most frequent first."""
    median_amount: float
    summer: float = 0.0
    """Seasonal swing: the theme's weight is multiplied by 1 + summer x sine, which has its maximum in mid July."""


THEMES = {
    "groceries": Theme(("grocery store", "bakery", "butcher", "market stall"), 24),
    "transport": Theme(("fuel", "parking", "public transport", "taxi"), 18),
    "restaurants": Theme(("restaurant", "fast food", "coffee", "bar"), 14),
    "travel": Theme(("airline", "hotel", "car rental", "travel agency"), 160, summer=0.6),
    "home": Theme(("furniture", "hardware", "utilities", "garden"), 60, summer=-0.3),
    "children": Theme(("toys", "school", "baby goods", "sports club"), 35),
    "digital": Theme(("streaming", "games", "app store", "telecom"), 10),
    "culture": Theme(("books, music", "cinema", "museum", "theatre"), 22),
    "health": Theme(("pharmacy", "doctor", "dentist", "gym"), 30),
    "shops": Theme(tuple(f"shop {number:03d}" for number in range(1, 401)), 28),
}


@dataclass(frozen=True)
class Persona:
    """A type of user."""

    share: float
    """Share of the users."""
    likes: dict[str, float]
    """Weight of a theme; 1 for a theme that is not named."""
    weekend: float
    """Rate on Saturday and Sunday; from Monday to Friday it is 1."""
    hour: float
    """Mean hour of the day."""
    spend: float
    """Factor of the amounts."""
    channels: tuple[float, float, float, float, float]
    """Share of each channel."""


PERSONAS = {
    "commuter": Persona(
        share=0.25,
        likes={"transport": 3, "restaurants": 1.6},
        weekend=0.6,
        hour=9,
        spend=0.9,
        channels=(0.25, 0.5, 0.15, 0.08, 0.02),
    ),
    "family": Persona(
        share=0.25,
        likes={"groceries": 2.2, "children": 2.5, "home": 1.5},
        weekend=1.4,
        hour=16,
        spend=1.2,
        channels=(0.4, 0.3, 0.2, 0.08, 0.02),
    ),
    "student": Persona(
        share=0.2,
        likes={"digital": 2.5, "restaurants": 2, "culture": 1.4},
        weekend=1.3,
        hour=20,
        spend=0.6,
        channels=(0.1, 0.5, 0.33, 0.05, 0.02),
    ),
    "traveller": Persona(
        share=0.15,
        likes={"travel": 3, "restaurants": 1.6},
        weekend=1.0,
        hour=13,
        spend=1.6,
        channels=(0.35, 0.25, 0.33, 0.05, 0.02),
    ),
    "homebody": Persona(
        share=0.15,
        likes={"home": 2, "health": 2, "culture": 1.5},
        weekend=0.9,
        hour=11,
        spend=1.0,
        channels=(0.45, 0.15, 0.2, 0.18, 0.02),
    ),
}
