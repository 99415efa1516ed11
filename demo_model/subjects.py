"""What the world of drawings holds: subjects that the base learns, concepts that it never sees, styles and their sources.

Every name is one word and is the drawing's own name in both emoji sets.
"""

from __future__ import annotations

#: Drawn by the base, in both styles (but for the pairs that are held out).
SUBJECTS = tuple(
    """
    airplane ambulance anchor avocado axe bacon balloon banana basketball bear bed bell bicycle bird blowfish books bread broccoli bus
    butterfly cactus camel camera candy carrot cat chair cherries chicken cloud coconut cow crab croissant cupcake deer dog dolphin
    doughnut drum duck eggplant elephant fire fish fox frog gear giraffe goat grapes guitar hamburger hammer headphone hedgehog
    hippopotamus honeybee horse house ice jeans kangaroo key ladder laptop lemon lion lizard llama lollipop magnet melon motorcycle
    mountain mushroom onion otter owl panda parachute parrot peach pear pencil penguin pig pizza pretzel rabbit rainbow rhinoceros
    ring rose sandwich scissors shamrock shark shrimp snail snake snowflake spider squid star strawberry sun sunflower taxi telephone
    tent tiger tomato tractor trophy umbrella watermelon whale wheel zebra
    """.split()
)

#: Never drawn by the base: what a person teaches it.
CONCEPTS = tuple(
    """
    abacus accordion backpack bowling bullseye candle castle crown dragon dress flamingo helicopter jellyfish joker kite koala lobster
    maracas microscope mirror moai octopus pancakes peacock pineapple poodle popcorn rocket sailboat saxophone scarf scorpion
    shortcake sloth snowman teapot telescope unicorn violin volcano
    """.split()
)

#: The style's word and the icon set that it comes from. The last one is unseen: it is for style adapters.
STYLES = {"glossy": "noto", "flat": "fluent-emoji-flat", "ink": "fluent-emoji-high-contrast"}
SEEN_STYLES = ("glossy", "flat")
