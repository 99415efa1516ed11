"""What the sticker world holds: subjects that the base learns, concepts that it never sees, styles and their sources.

Every name is one word and is the drawing's own name in both emoji sets.
"""

from __future__ import annotations

#: Drawn by the base, in both styles (but for the pairs that are held out).
SUBJECTS = tuple(
    """
    airplane ambulance amphora anchor ant automobile avocado axe bacon badger bagel balloon banana banjo baseball basket basketball
    bat bathtub battery beans bear beaver bed beetle bell bicycle bird blowfish blueberries books bread briefcase broccoli broom
    bucket bug bus butter butterfly cactus camel camera candy canoe carrot cat chair cherries chestnut chicken cloud coat coconut coin
    compass cookie cooking coral cow crab cricket crocodile croissant cupcake dango deer dna dog dolphin door doughnut dove droplet
    drum duck dumpling eagle egg eggplant elephant envelope feather ferry fire firecracker fish flashlight flute fox frog garlic gear
    giraffe glasses gloves goat goose grapes guitar hamburger hammer hamster handbag headphone hedgehog hibiscus hippopotamus honeybee
    hook horse house hut hyacinth ice jar jeans joystick kangaroo key ladder laptop lemon leopard lion lizard llama lollipop lotus
    magnet mango megaphone melon microphone monkey moose motorcycle mountain mouse mushroom notebook olive onion otter owl oyster
    package paintbrush panda parachute parrot peach peanuts pear pen pencil penguin pick pie pig pizza postbox potato pretzel purse
    rabbit raccoon radio rainbow ram rhinoceros ribbon ring rooster rose salt sandwich scissors screwdriver scroll seal shamrock shark
    shield shorts shower shrimp skateboard skis skunk sled snail snake snowflake soap socks sparkles spider sponge squid star
    stopwatch strawberry sun sunflower sunglasses sushi swan taco taxi telephone television tennis tent thread tiger tomato toolbox
    toothbrush tornado tractor train trophy trumpet tulip turkey turtle umbrella volleyball waffle wastebasket watch watermelon whale
    wheel window wolf wrench yarn zebra
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
