"""The things that the demo model knows by name: a hand-made choice from CLDR's English names, with their grammar.

An entry is `name` or `name=CLDR name|CLDR name`; several CLDR names are several drawings of one concept. Names that a
small model could not tell apart (five kinds of mailbox, the clock faces) are merged or left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

_CHOICE = {
    "animal": """
        rat, mouse=mouse|mouse face, ox, water buffalo, cow=cow|cow face, tiger=tiger|tiger face, leopard,
        rabbit=rabbit|rabbit face, cat=cat|cat face, dragon=dragon|dragon face, crocodile, whale=whale|spouting
        whale, snail, snake, horse=horse|horse face, ram, goat, sheep=ewe, monkey=monkey|monkey face, rooster,
        chicken, dog=dog|dog face, pig=pig|pig face, boar, elephant, octopus, caterpillar=bug, ant, bee=honeybee,
        ladybug=lady beetle, fish, tropical fish, blowfish, turtle, hatching chick, chick=baby chick|front-facing
        baby chick, bird, penguin, koala, poodle, camel=camel|two-hump camel, dolphin, frog, hamster, wolf, bear,
        panda, chipmunk, dove, spider, crab, lion, scorpion, turkey, unicorn, eagle, duck, bat, shark, owl, fox,
        butterfly, deer, gorilla, lizard, rhinoceros, shrimp, squid, giraffe, zebra, hedgehog,
        dinosaur=sauropod|T-Rex, cricket, kangaroo, llama, peacock, hippopotamus, parrot, raccoon, lobster,
        mosquito, badger, swan, mammoth, dodo, sloth, otter, orangutan, skunk, flamingo, beaver, bison, seal, fly,
        worm, beetle, cockroach""",
    "plant": """
        clover=shamrock|four leaf clover, seedling, pine tree=evergreen tree, tree=deciduous tree, palm tree,
        cactus, tulip, rose, hibiscus, sunflower, cherry blossom, blossom, maple leaf, mushroom, bouquet, potted
        plant, herb, wheat=sheaf of rice, feather, lotus, nest=empty nest""",
    "fruit": """
        grapes, melon, watermelon, orange=tangerine, lemon, banana, pineapple, red apple, green apple, pear, peach,
        cherries, strawberry, kiwi=kiwi fruit, mango, coconut, blueberries, tomato, olive, avocado""",
    "food": """
        hot dog, taco, burrito, chestnut, hot pepper, corn=ear of corn, eggplant, hamburger, pizza, meat=meat on
        bone, drumstick=poultry leg, rice ball, rice=cooked rice, spaghetti, bread, fries=french fries, sushi, ice
        cream=ice cream|soft ice cream, doughnut, cookie, chocolate bar, candy, lollipop, custard, honey pot,
        shortcake, lunch box=bento box, popcorn, birthday cake, croissant, cucumber, bacon, potato, carrot,
        baguette=baguette bread, salad=green salad, egg, peanuts, pancakes, fortune cookie, broccoli, pie, pretzel,
        steak=cut of meat, sandwich, bagel, cheese=cheese wedge, cupcake, salt, garlic, onion, waffle, butter, bell
        pepper, beans, fried shrimp""",
    "drink": """
        coffee=hot beverage, wine glass, cocktail=cocktail glass|tropical drink, beer mug, baby bottle,
        champagne=bottle with popping cork, milk=glass of milk, teapot, bubble tea, whisky=tumbler glass, soda=cup
        with straw, juice box=beverage box""",
    "vehicle": """
        ferry, sailboat, airplane, motorcycle, racing car, rocket, helicopter, locomotive, train=train|high-speed
        train, metro, tram, bus=bus|oncoming bus, ambulance, fire engine, police car=police car|oncoming police car,
        taxi=taxi|oncoming taxi, car=automobile|oncoming automobile, truck=delivery truck, lorry=articulated lorry,
        tractor, monorail, ship, speedboat, bicycle, motor boat, small airplane, satellite, kick scooter, motor
        scooter, canoe, flying saucer, skateboard, rickshaw=auto rickshaw, pickup truck, roller skate,
        wheelchair=manual wheelchair, sled, parachute, hot air balloon""",
    "place": """
        church, mountain=mountain|snow-capped mountain, fountain, tent, rainbow, volcano, ferris wheel, circus tent,
        desert island, stadium, house=house|house with garden, hospital, bank, hotel, school, factory, castle,
        mosque, statue=Statue of Liberty, hut, slide=playground slide, carousel=carousel horse, temple=classical
        building""",
    "sky": """
        sun, cloud, snowman=snowman|snowman without snow, comet, lightning=high voltage, snowflake, star, wave=water
        wave, globe=globe showing Europe-Africa|globe showing Americas|globe showing Asia-Australia, full moon,
        crescent moon, tornado, drop=droplet, fire, planet=ringed planet""",
    "object": """
        watch, hourglass=hourglass done|hourglass not done, alarm clock, stopwatch, umbrella=umbrella|umbrella with
        rain drops, anchor, fuel pump, thermometer, traffic light=vertical traffic light, stop sign, wheel, life
        buoy=ring buoy, compass, brick, suitcase=luggage, wood, keyboard, telephone, pick, scissors, envelope,
        pencil, backpack, microphone=microphone|studio microphone, movie camera, headphones=headphone, crown,
        glasses, sunglasses, necktie, T-shirt=t-shirt, jeans, dress, kimono, handbag, shoe=man\u2019s shoe,
        sneaker=running shoe, boot=woman\u2019s boot, lipstick, syringe, pill, ring, diamond=gem stone,
        light bulb, bomb,
        money bag, credit card, laptop, briefcase, floppy disk, disc=optical disk|dvd, folder=file folder, calendar,
        bar chart, clipboard, pushpin, paperclip, ruler=straight ruler, notebook, red book=closed book, open book,
        green book, blue book, orange book, books, scroll, megaphone, package, newspaper, mobile phone,
        camera=camera|camera with flash, television, radio, battery, electric plug, magnifying glass=magnifying
        glass tilted left, lock=locked, key, bell, flashlight, wrench, hammer, nut and bolt, microscope, telescope,
        candle, pen, paintbrush, crayon, computer=desktop computer, printer, trash can=wastebasket, dagger, door,
        cigarette, toilet, shower, bathtub, bed, shopping cart, shield, drum, scarf, gloves, coat, socks, test tube,
        fire extinguisher, toolbox, magnet, safety pin, broom, basket, soap, sponge, ballet shoes,
        swimsuit=one-piece swimsuit, shorts, sandal=thong sandal, bandage=adhesive bandage, stethoscope, boomerang,
        chair, razor, axe, ladder, saw=carpentry saw, screwdriver, hook, mirror, window, plunger, bucket,
        toothbrush, gravestone=headstone, coin, spoon, kitchen knife, chopsticks, jar, vase=amphora, balance scale,
        gear, chains, helmet=rescue worker\u2019s helmet, top hat, cap=billed cap, label, link, lantern=red paper
        lantern, bow and arrow""",
    "music": """
        saxophone, guitar, piano=musical keyboard, trumpet, violin, banjo, accordion, music note=musical note""",
    "sport": """
        soccer ball, baseball, ice skate, fishing rod=fishing pole, skis, basketball, medal=sports medal, trophy,
        football=american football, volleyball, bowling, tennis ball=tennis, hockey stick=field hockey, boxing
        glove, bullseye, die=game die, kite, flying disc, curling stone, goal=goal net""",
    "toy": """
        chess pawn, sparkler, balloon, gift=wrapped gift, pumpkin=jack-o-lantern, Christmas tree, ribbon, party
        popper, palette=artist palette, ticket, video game, crystal ball, joystick, teddy bear, yo-yo, puzzle piece,
        yarn, thread, magic wand, piñata, diving mask, framed picture""",
    "face": """
        skull, alien, ghost, robot, clown=clown face, smiling face=smiling face with smiling eyes, crying
        face=loudly crying face, sleeping face, thinking face, angry face, face with sunglasses=smiling face with
        sunglasses, devil=smiling face with horns""",
    "symbol": """
        red heart, blue heart, green heart, yellow heart, purple heart, orange heart, black heart, white heart,
        broken heart, red circle, check mark=check mark button, cross mark, question mark=red question mark,
        exclamation mark=red exclamation mark, recycling symbol, peace symbol, yin yang, warning sign=warning, right
        arrow, left arrow, up arrow, down arrow""",
}

_PLURAL = {
    "mouse": "mice", "ox": "oxen", "wolf": "wolves", "sheep": "sheep", "fish": "fish", "tropical fish": "tropical fish",
    "blowfish": "blowfish", "deer": "deer", "squid": "squid", "shrimp": "shrimp", "fried shrimp": "fried shrimp",
    "bison": "bison", "maple leaf": "maple leaves", "goose": "geese", "kitchen knife": "kitchen knives", "die": "dice",
    "water buffalo": "water buffalo", "sushi": "sushi", "octopus": "octopuses", "cactus": "cactuses", "loaf": "loaves",
}  # fmt: skip
_NO_PLURAL = {
    "grapes", "cherries", "blueberries", "peanuts", "pancakes", "beans", "fries", "glasses", "sunglasses", "jeans",
    "gloves", "socks", "shorts", "chopsticks", "chains", "books", "scissors", "headphones", "ballet shoes", "skis",
}  # fmt: skip
_MASS = {
    "corn", "rice", "spaghetti", "bread", "sushi", "meat", "popcorn", "bacon", "cheese", "salt", "garlic", "butter",
    "coffee", "champagne", "milk", "bubble tea", "whisky", "soda", "lightning", "fire", "wood", "yarn", "thread",
    "soap", "bowling", "wheat", "cherry blossom", "custard", "candy",
}  # fmt: skip

# Left out of the smaller choice: rarely named, or close to another concept at this size.
_RARE_TEXT = """
    ox, water buffalo, ram, boar, hatching chick, poodle, hamster, chipmunk, dove, cricket, mammoth, dodo,
    otter, orangutan, skunk, beaver, bison, fly, worm, beetle, cockroach, leopard, llama, badger, seal,
    blowfish, hibiscus, blossom, herb, nest, seedling, wheat, lotus, melon, mango, olive, peach, chestnut,
    rice, rice ball, custard, honey pot, shortcake, lunch box, fortune cookie, bagel, salt, butter, beans,
    fried shrimp, steak, salad, burrito, bell pepper, whisky, juice box, champagne, bubble tea, ferry,
    speedboat, motor boat, small airplane, monorail, metro, tram, lorry, rickshaw, kick scooter, motor
    scooter, racing car, pickup truck, sled, parachute, locomotive, wheelchair, desert island, stadium,
    hospital, bank, hotel, school, factory, mosque, statue, hut, slide, carousel, temple, circus tent, wave,
    planet, drop, fuel pump, thermometer, pick, brick, wood, suitcase, kimono, necktie, lipstick, bomb,
    credit card, floppy disk, disc, folder, clipboard, paperclip, ruler, notebook, red book, green book,
    blue book, orange book, package, battery, electric plug, nut and bolt, microscope, crayon, pen, printer,
    cigarette, shower, bathtub, shopping cart, test tube, toolbox, safety pin, sponge, ballet shoes,
    swimsuit, shorts, sandal, bandage, stethoscope, boomerang, razor, hook, window, plunger, gravestone,
    jar, vase, chains, cap, label, link, lantern, bow and arrow, banjo, accordion, hockey stick, curling
    stone, goal, flying disc, skis, bowling, football, chess pawn, sparkler, party popper, ticket, joystick,
    puzzle piece, thread, piñata, diving mask, framed picture, devil, thinking face, peace symbol, yin yang,
    black heart, white heart, orange heart, red circle, fishing rod, coat, dagger, money bag, life buoy,
    stopwatch, movie camera, flashlight
"""
_RARE = {" ".join(name.split()) for name in _RARE_TEXT.split(",")}

KIND_NOUN = {
    "animal": "an animal", "plant": "a plant", "fruit": "a fruit", "food": "food", "drink": "a drink",
    "vehicle": "a vehicle", "place": "a place", "sky": "something in the sky or the weather", "object": "an object",
    "music": "something for music", "sport": "something for sport", "toy": "a toy", "face": "a face",
    "symbol": "a symbol",
}  # fmt: skip


@dataclass(frozen=True)
class Concept:
    """A nameable thing: its English name, its kind (a key of `KIND_NOUN`) and the CLDR names of its drawings."""

    name: str
    kind: str
    drawings: tuple[str, ...]

    @cached_property
    def countable(self) -> bool:
        """Whether `three NAMEs` is English."""
        return self.name not in _MASS and self.name not in _NO_PLURAL

    @cached_property
    def phrase(self) -> str:
        """The name with its indefinite article where it takes one: `an owl`, `rice`, `grapes`."""
        return self.name if not self.countable else with_article(self.name)

    @cached_property
    def plural(self) -> str:
        """The plural, or the name itself where there is none."""
        return plural(self.name) if self.countable else self.name


_SOUNDS_LIKE_VOWEL = re.compile("hour|honest|honou?r|heir")
_SOUNDS_LIKE_CONSONANT = re.compile(r"uni(?![mn])|us[aeu]|using|ute|uti|ur[ai]n|eu|ewe|(?:one|once)\b")


def with_article(noun: str) -> str:
    """Puts `a` or `an` in front of a noun phrase, by the sound of its first word: `an hourglass`, `a unicorn`."""
    word = noun.lower()
    vowel = word[0] in "aeiou" and not _SOUNDS_LIKE_CONSONANT.match(word)
    return ("an " if vowel or _SOUNDS_LIKE_VOWEL.match(word) else "a ") + noun


def plural(noun: str) -> str:
    """Forms the plural of a noun phrase."""
    if noun in _PLURAL:
        return _PLURAL[noun]
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def _parse() -> tuple[Concept, ...]:
    concepts = []
    for kind, text in _CHOICE.items():
        for entry in text.split(","):
            name, _, drawings = " ".join(entry.split()).partition("=")
            concepts.append(Concept(name, kind, tuple(drawings.split("|")) if drawings else (name,)))
    return tuple(concepts)


CONCEPTS = _parse()
CORE_CONCEPTS = tuple(concept for concept in CONCEPTS if concept.name not in _RARE)
