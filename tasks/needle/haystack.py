"""The built-in haystack: gentle English about a small harbour town, generated, so that it ships with the project.

Not a published haystack: the published experiments hide their needle in Paul Graham's essays, which are not ours to
ship. Numbers made with this text compare methods with each other; to stand beside published ones, give the essays as
``task.haystack``.

The text is the same everywhere: it draws only on ``random.Random(SEED).random()``, which Python guarantees not to
change.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

SEED = 1789
CHARACTERS = 200_000

_WOMEN = (
    "Ada",
    "Clara",
    "Edith",
    "Greta",
    "Ines",
    "Kira",
    "Mabel",
    "Olive",
    "Rosa",
    "Tamsin",
    "Wanda",
    "Zelda",
    "Beryl",
)
_MEN = (
    "Bruno",
    "Desmond",
    "Felix",
    "Hugo",
    "Jonas",
    "Lorenz",
    "Nils",
    "Piet",
    "Silas",
    "Viggo",
    "Yusuf",
    "Anton",
    "Caspar",
)
_PEOPLE = tuple((name, "she", "her") for name in _WOMEN) + tuple((name, "he", "his") for name in _MEN)

# What belongs together in a paragraph: where it happens, what is at hand, what people do there, what is learnt from it.
_THEMES: tuple[Mapping[str, tuple[str, ...]], ...] = (
    {
        "place": ("the harbour", "the long pier", "the boat shed", "the fish market", "the lighthouse", "the slipway"),
        "thing": (
            "net",
            "lantern",
            "anchor",
            "rope",
            "oar",
            "sail",
            "barrel",
            "compass",
            "tarred crate",
            "wooden float",
        ),
        "stuff": ("salt", "driftwood", "seaweed", "rust", "wet canvas", "fresh paint"),
        "did": (
            "mended the nets",
            "coiled the ropes",
            "counted the boats",
            "watched the tide turn",
            "scraped the old hull",
            "listened to the gulls",
        ),
        "lesson": (
            "the sea forgives nobody who is in a hurry",
            "a knot tied twice holds once",
            "a calm morning is not a promise",
            "every rope has its own temper",
        ),
    },
    {
        "place": (
            "the walled garden",
            "the orchard",
            "the glasshouse",
            "the allotment",
            "the herb beds",
            "the lower meadow",
        ),
        "thing": (
            "rake",
            "watering can",
            "pear tree",
            "seed box",
            "trellis",
            "wheelbarrow",
            "bean row",
            "clay pot",
            "rose bush",
            "ladder",
        ),
        "stuff": ("compost", "mint", "damp earth", "fallen leaves", "cut grass", "rosemary"),
        "did": (
            "pruned the apple trees",
            "sowed a second row of peas",
            "turned the heavy soil",
            "tied up the climbing beans",
            "gathered windfall plums",
            "chased away the pigeons",
        ),
        "lesson": (
            "a hedge grows best when it is left to think",
            "nothing planted in anger comes up straight",
            "weeds are only early guests",
            "the frost reads no calendar",
        ),
    },
    {
        "place": ("the bakery", "the village kitchen", "the tea room", "the cellar", "the corner inn", "the old mill"),
        "thing": (
            "copper pan",
            "rolling pin",
            "bread basket",
            "kettle",
            "recipe book",
            "oven door",
            "jam jar",
            "apron",
            "scale",
            "cake tin",
        ),
        "stuff": ("cinnamon", "warm butter", "flour", "roasted chestnuts", "honey", "burnt sugar"),
        "did": (
            "kneaded the morning dough",
            "stirred a pot of onion soup",
            "polished the spoons",
            "folded the napkins into swans",
            "tasted the plum jam",
            "swept flour from the step",
        ),
        "lesson": (
            "a good crust cannot be argued with",
            "soup remembers what you forget",
            "an oven has moods like any aunt",
            "patience is the cheapest spice",
        ),
    },
    {
        "place": (
            "the workshop",
            "the clockmaker's bench",
            "the smithy",
            "the carpenter's loft",
            "the print room",
            "the pottery",
        ),
        "thing": (
            "chisel",
            "clock spring",
            "vice",
            "drawer",
            "hinge",
            "plane",
            "kiln",
            "brass screw",
            "music box",
            "printing block",
        ),
        "stuff": ("sawdust", "machine oil", "wet clay", "ink", "hot iron", "varnish"),
        "did": (
            "sharpened the chisels",
            "took the clock apart again",
            "sanded the table top",
            "cut a new key for the chapel",
            "glazed a row of bowls",
            "set the type for the weekly paper",
        ),
        "lesson": (
            "a dull blade is the dangerous one",
            "measuring is a form of courtesy",
            "wood moves long after the tree has stopped",
            "a thing well made explains itself",
        ),
    },
    {
        "place": ("the library", "the schoolhouse", "the reading room", "the archive", "the museum", "the map room"),
        "thing": (
            "atlas",
            "ledger",
            "globe",
            "bookcase",
            "inkwell",
            "dictionary",
            "letter",
            "microscope",
            "catalogue",
            "writing desk",
        ),
        "stuff": ("old paper", "candle wax", "chalk", "leather", "dust", "beeswax"),
        "did": (
            "copied out an old map",
            "read aloud to the children",
            "sorted the letters by their stamps",
            "searched for a missing volume",
            "corrected a page of proofs",
            "labelled the collection of beetles",
        ),
        "lesson": (
            "a question is worth more after lunch",
            "a margin is where a book breathes",
            "the shortest answer has usually been revised",
            "maps flatter the people who draw them",
        ),
    },
    {
        "place": (
            "the ridge",
            "the pine forest",
            "the mountain hut",
            "the river bend",
            "the high pasture",
            "the stone bridge",
        ),
        "thing": (
            "walking stick",
            "rucksack",
            "signpost",
            "goat bell",
            "tin mug",
            "snowshoe",
            "saddle",
            "alpine horn",
            "milk churn",
            "woollen hat",
        ),
        "stuff": ("pine needles", "woodsmoke", "moss", "thawing snow", "wild thyme", "rain on stone"),
        "did": (
            "followed the marked path",
            "drank from the cold spring",
            "counted the goats twice",
            "built a small cairn",
            "rested under the larches",
            "looked for the first mushrooms",
        ),
        "lesson": (
            "the way down is also the way",
            "a mountain is never as far as it looks or as near",
            "shade is worth a detour",
            "clouds keep appointments better than people",
        ),
    },
    {
        "place": (
            "the concert hall",
            "the bandstand",
            "the rehearsal room",
            "the theatre",
            "the ballroom",
            "the chapel",
        ),
        "thing": (
            "cello",
            "curtain",
            "piano stool",
            "trumpet",
            "mask",
            "metronome",
            "velvet chair",
            "violin bow",
            "score",
            "tambourine",
        ),
        "stuff": ("rosin", "face powder", "old velvet", "lamp oil", "orange peel", "polish"),
        "did": (
            "tuned the piano by ear",
            "practised the slow movement",
            "painted a forest on the backdrop",
            "lost count in the second bar",
            "sang the alto part alone",
            "mended the stage curtain",
        ),
        "lesson": (
            "the rest is part of the tune",
            "an audience hears what the players believe",
            "a wrong note played kindly is soon forgiven",
            "applause is a kind of weather",
        ),
    },
    {
        "place": (
            "the railway station",
            "the post office",
            "the ferry landing",
            "the market square",
            "the inn yard",
            "the tram stop",
        ),
        "thing": (
            "suitcase",
            "timetable",
            "parcel",
            "bicycle",
            "umbrella",
            "ticket",
            "newspaper",
            "handcart",
            "flower stall",
            "station clock",
        ),
        "stuff": ("coal smoke", "wet wool", "ground coffee", "straw", "ripe cheese", "fresh newsprint"),
        "did": (
            "waited for the slow train",
            "weighed the parcels",
            "wrote a postcard to a cousin",
            "bargained over a melon",
            "carried somebody's trunk",
            "missed the last ferry",
        ),
        "lesson": (
            "a late train is still a train",
            "strangers are friends with luggage",
            "every queue has its own philosopher",
            "news travels faster than its messenger",
        ),
    },
)

_WORDS: Mapping[str, tuple[str, ...]] = {
    "when": (
        "At first light",
        "Before breakfast",
        "Late in the afternoon",
        "On market day",
        "Towards evening",
        "After the rain",
        "In the second week of spring",
        "On the coldest morning of the year",
        "Shortly before noon",
        "One quiet autumn",
        "In the long days of midsummer",
        "When the bells had stopped",
        "By lamplight",
    ),
    "often": (
        "often",
        "seldom",
        "usually",
        "sometimes",
        "now and then",
        "always",
        "rarely",
        "almost never",
        "gladly",
        "quietly",
    ),
    "how": (
        "slowly",
        "carefully",
        "without a word",
        "with great ceremony",
        "cheerfully",
        "in silence",
        "with cold fingers",
        "with a steady hand",
        "absent-mindedly",
        "as if nobody were watching",
        "humming a little",
        "with surprising skill",
        "half asleep",
    ),
    "adj": (
        "ancient",
        "battered",
        "borrowed",
        "bright",
        "broken",
        "clumsy",
        "crooked",
        "dusty",
        "elegant",
        "faded",
        "famous",
        "forgotten",
        "gleaming",
        "handsome",
        "heavy",
        "humble",
        "ingenious",
        "little",
        "lopsided",
        "narrow",
        "ordinary",
        "painted",
        "patient",
        "peculiar",
        "polished",
        "precious",
        "second-hand",
        "sturdy",
        "stubborn",
        "tidy",
        "weathered",
        "well-loved",
        "yellow",
        "silver",
        "dark green",
        "enormous",
    ),
    "weather": (
        "the wind had dropped",
        "a thin mist lay over the roofs",
        "it had begun to snow",
        "the sun came through at last",
        "the sky was the colour of pewter",
        "thunder was moving about in the hills",
        "the air was as clear as glass",
        "a warm drizzle was falling",
        "the puddles had frozen over",
        "the first swallows were back",
        "the evening was wide and golden",
        "a stiff breeze came from the west",
    ),
    "animal": (
        "grey cat",
        "sleepy spaniel",
        "heron",
        "robin",
        "hedgehog",
        "blackbird",
        "donkey",
        "goose",
        "jackdaw",
        "tame crow",
        "kitten",
        "red squirrel",
    ),
    "animal_did": (
        "slept through all of it",
        "looked on with disapproval",
        "had found a patch of sunlight",
        "kept a polite distance",
        "begged for crumbs",
        "came and went as it pleased",
        "inspected every corner",
        "seemed to be expecting somebody",
    ),
    "kin": (
        "aunt",
        "grandfather",
        "sister",
        "neighbour",
        "old teacher",
        "brother",
        "godmother",
        "uncle",
        "cousin",
        "apprentice",
        "landlady",
    ),
    "trade": (
        "ferryman",
        "schoolteacher",
        "beekeeper",
        "postmistress",
        "doctor",
        "organist",
        "cobbler",
        "innkeeper",
        "surveyor",
        "weaver",
        "chimney sweep",
        "bookbinder",
        "gardener",
        "retired captain",
    ),
    "felt": (
        "content",
        "curious",
        "a little ashamed",
        "oddly proud",
        "perfectly calm",
        "restless",
        "grateful",
        "older than before",
        "ready for anything",
        "homesick",
        "amused",
        "unreasonably hopeful",
    ),
    "talk": (
        "the price of candles",
        "a wedding in the next valley",
        "the habits of owls",
        "whether winters were longer in the old days",
        "the proper way to brew tea",
        "a ghost that nobody had seen",
        "the new road",
        "the meaning of a dream",
        "the election of the choir master",
        "a cure for hiccups",
        "the shape of clouds",
        "an opera about beekeepers",
    ),
    "found": (
        "a pressed flower",
        "a child's mitten",
        "a foreign coin",
        "half of a love letter",
        "a tin soldier",
        "a bundle of keys",
        "a blue feather",
        "a shopping list in verse",
        "a photograph of somebody's dog",
        "a silver thimble",
        "a map of nowhere in particular",
        "an unopened envelope",
    ),
    "amount": ("two", "three", "four", "a dozen", "seven", "nine", "far too many", "hardly any", "eleven", "twenty"),
    "span": (
        "a week",
        "most of the winter",
        "an entire afternoon",
        "the better part of a year",
        "nearly a month",
        "as long as anyone could remember",
        "three days",
        "one whole season",
    ),
    "view": (
        "rows of slate roofs",
        "the slow bend of the river",
        "a field of barley",
        "the far islands",
        "the backs of the houses",
        "a line of poplars",
        "washing on the balconies",
        "somebody's lighted window",
        "the hills beyond the town",
        "a single white sail",
    ),
}

_OPENINGS = (
    "{when}, {name} {did} at {place}.",
    "{when}, {weather}, and {name} walked over to {place} to see what was left to do.",
    "{name} had worked at {place} for {span}, and knew every {thing} in it.",
    "There was {a} {adj} {thing} at {place} that nobody but {name} was allowed to touch.",
    "Anyone who wanted to find {name} went first to {place}.",
    "It was the {trade} who first brought {name} to {place}.",
    "{place}, which smelled of {stuff}, was the one spot where {name} could think.",
    "For {span} {name} had been meaning to visit {place}.",
    "In those years {place} was kept by {name}, {a} {trade} by training.",
    "{when}, the {kin} of {name} could be found at {place}, where {weather}.",
)

_BODIES = (
    "{They} {did}, and then {did2}.",
    "{They} {did} {how}.",
    "The {thing} was {adj}, the {thing2} was {adj2}, and the rest hardly mattered.",
    "{weather}, so {they} stayed indoors and {did}.",
    "{A} {animal} {animal_did}.",
    "{Their} {kin} used to say that {lesson}.",
    "{other} came by with {a} {adj} {thing} and stayed for {span}.",
    "{other} and {name} talked about {talk} while the {trade} {did}.",
    "Behind the {thing} {they} found {found}, which was put on the windowsill.",
    "The {trade} asked for {amount} of them, and got {amount2}.",
    "Through the open door one could see {view} and, on good days, {view2}.",
    "{They} {often} spoke of {talk}, and {other} {often2} listened.",
    "It smelled of {stuff} and, more faintly, of {stuff2}.",
    "It took {span} to repair the {thing}, because the {thing2} had to be moved first.",
    "{other}, who was {felt}, {did} {how}.",
    "When the work was done, {they} sat down beside the {thing} and looked at {view}.",
    "Nobody could explain why the {adj} {thing} was kept next to {found}.",
    "There were {amount} ways to begin, and {other} had tried most of them.",
    "{They} {often} forgot the {thing}, but never the {thing2}.",
    "The {kin} of {other} had left {other_their} {thing} there, wrapped in {found2}.",
    "If {weather}, as it did that day, even the {animal} {animal_did}.",
    "{They} believed that {lesson}, although the {trade} did not agree.",
    "The {trade} laughed, the {animal} {animal_did}, and {name} felt {felt}.",
    "Somebody had hung {a} {adj} {thing} above the door, facing {view}.",
    "{other} suggested {a} {adj} {thing} instead, but it was too late for that.",
    "What they remembered later was the {stuff}, the {adj} light, and the sound of the {thing}.",
    "{when2}, {weather2}, and for a moment everyone stopped talking about {talk}.",
    "The {adj} {thing} belonged to the {trade}; the {adj2} one had always been there.",
    "{They} kept {amount} of them in a drawer, together with {found}.",
    "It is said that {lesson}, and at {place} nobody doubted it.",
    "{other} wrote everything down {how}, even the conversation about {talk}.",
    "From {place} the path led on past {view} to where the {trade} lived.",
)

_CLOSINGS = (
    "{name} went home feeling {felt}.",
    "That, {other} said, was how {they} had learnt that {lesson}.",
    "By then {weather}, and there was nothing to do but wait.",
    "The {thing} is still there, and so is the {animal}.",
    "Afterwards they shared a pot of tea and spoke of {talk}.",
    "{They} closed the door {how} and left the {thing} where it was.",
    "So it went on for {span}, and nobody complained.",
    "In the end {they} kept the {thing} and gave away the {thing2}.",
    "Years later {other} would still tell the story of the {adj} {thing}.",
    "The lamps were lit, {weather}, and {place} was empty again.",
)


class _Draw:
    """Choices that are the same under every Python: only ``random()`` of the generator is used."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def below(self, bound: int) -> int:
        """An integer in [0, bound)."""
        return int(self._random.random() * bound)

    def distinct(self, choices: Sequence[str], count: int) -> list[str]:
        """``count`` different entries, in random order."""
        left = list(choices)
        return [left.pop(self.below(len(left))) for _ in range(count)]


def _sentence(template: str, draw: _Draw, fixed: Mapping[str, str], theme: Mapping[str, tuple[str, ...]]) -> str:
    """One sentence. A slot is a word list's name; the same name with a 2 is another entry of that list."""
    names = set(re.findall(r"\{(\w+)\}", template))
    filled = dict(fixed)
    for name in sorted({n.rstrip("2") for n in names} - set(fixed)):
        choices = theme.get(name) or _WORDS.get(name)
        if choices is not None:
            filled[name], filled[name + "2"] = draw.distinct(choices, 2)
    filled["when2"] = filled.get("when2", "").lower()
    text = re.sub(r"\{(\w+)\}", lambda match: filled[match[1]], template)
    text = re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)
    return text[0].upper() + text[1:]


def _paragraph(draw: _Draw) -> str:
    theme = _THEMES[draw.below(len(_THEMES))]
    first = draw.below(len(_PEOPLE))
    second = (first + 1 + draw.below(len(_PEOPLE) - 1)) % len(_PEOPLE)
    name, they, their = _PEOPLE[first]
    fixed = {"name": name, "they": they, "They": they, "Their": their, "other": _PEOPLE[second][0], "a": "a", "A": "a"}
    fixed |= {"other_their": _PEOPLE[second][2], "place": draw.distinct(theme["place"], 1)[0]}
    templates = draw.distinct(_OPENINGS, 1) + draw.distinct(_BODIES, 3 + draw.below(5)) + draw.distinct(_CLOSINGS, 1)
    return " ".join(_sentence(template, draw, fixed, theme) for template in templates)


@lru_cache(maxsize=1)
def builtin_text() -> str:
    """The built-in haystack: ``generated_text`` of ``SEED``."""
    return generated_text(SEED, CHARACTERS)


def generated_text(seed: int, characters: int) -> str:
    """Paragraphs divided by blank lines, at least so many characters, ASCII, no digits. Another seed is another text of the same town."""
    draw = _Draw(seed)
    paragraphs: list[str] = []
    written = 0
    while written < characters:
        paragraphs.append(_paragraph(draw))
        written += len(paragraphs[-1]) + 2
    return "\n\n".join(paragraphs) + "\n\n"
