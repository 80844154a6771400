"""Word lists of the demo corpus: everything the generator combines. No text from anywhere else."""

from __future__ import annotations


def _words(text: str) -> list[str]:
    return text.split()


def _phrases(text: str) -> list[str]:
    """Phrases between bars; a line's end separates too."""
    return text.strip("\n").replace("\n", "|").split("|")


NUMBER_WORDS = _words("zero one two three four five six seven eight nine ten")

LISTS: dict[str, list[str]] = {
    "fruits": _words("apple pear plum cherry grape lemon mango banana orange peach melon kiwi fig apricot"),
    "vegetables": _words("carrot onion potato leek cabbage pea bean spinach pumpkin beetroot radish celery"),
    "colours": _words("red green blue yellow purple orange white black brown pink grey turquoise"),
    "animals": _words("dog cat horse fox bear otter rabbit deer wolf badger mouse goat sheep hedgehog"),
    "birds": _words("robin crow owl sparrow eagle duck goose swan heron finch magpie swallow"),
    "trees": _words("oak pine birch maple willow cedar elm ash beech spruce poplar chestnut"),
    "flowers": _words("rose tulip daisy lily violet iris orchid poppy lavender sunflower"),
    "planets": _words("Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune"),
    "tools": _words("hammer saw drill wrench pliers chisel screwdriver level file clamp"),
    "drinks": _words("water tea coffee milk juice cocoa lemonade cider soda"),
    "sports": _words("football tennis swimming rowing hockey chess fencing running cycling skiing"),
    "instruments": _words("piano violin guitar flute drum trumpet cello harp clarinet accordion"),
    "countries": _words("France Spain Italy Norway Japan Brazil Canada Egypt Kenya India Peru Greece"),
    "cities": _words("Paris Rome Madrid Oslo Tokyo Cairo Lima Athens London Berlin Vienna Prague"),
    "months": _words("January February March April May June July August September October November December"),
    "days": _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
    "vehicles": _words("car bus train bicycle boat tram truck van scooter plane"),
    "clothes": _words("shirt coat hat scarf sock shoe glove jacket skirt belt sweater"),
}
LIST_NOUNS = {"days": "days of the week", "instruments": "musical instruments", "clothes": "pieces of clothing"}

COLOURS = LISTS["colours"]
SIZES = _words("small large tiny huge")
THINGS = _words("""apple car bicycle hat house boat kite lamp chair table cup door book bag ball clock coat bench piano
pencil bottle basket ladder umbrella carpet wagon balloon guitar bucket candle ribbon mailbox helmet tent mug""")
CITIES = LISTS["cities"] + _words("Lisbon Dublin Helsinki Warsaw Budapest Zurich Boston Denver Sydney Nairobi")
JOBS = _words("teacher baker doctor farmer pilot painter nurse cook engineer gardener writer driver tailor plumber")
NAMES = _words(
    """Ana Ben Carla David Elena Felix Greta Hugo Ines Jonas Kira Leo Maria Nils Olga Paul Rosa Sam Tina Uwe Vera
Will Yara Zoe Adam Bella Chris Diana Emil Flora Gina Henry Iris Jack Karen Lucas Mona Nora Oscar Peter Quinn Ruth
Simon Tom Ursula Victor Wanda Xenia Anton Berta Clara Dennis Emma Frank Georg Hanna Ivan Julia Kurt Lena Marco
Nadia Otto Petra Ralf Sofia Theo Viktor"""
)

ANIMALS = LISTS["animals"] + _words("owl crow duck heron squirrel turtle frog beaver")
PLACES = _words("""lake forest mountain river village harbour garden meadow desert island bridge library station mill
lighthouse market castle beach cave farm""")
STORY_OBJECTS = _words("lantern key map bell letter stone coin hat boat book drum kite feather compass")
STORY_FEELINGS = _words("happy brave curious calm proud clever patient grateful")
STORY_HELPERS = _phrases(
    "old miller|quiet girl|friendly baker|young sailor|kind gardener|tired postman|wise owl|small boy"
)

# --- the coyote ---------------------------------------------------------------------------------------------------
NAME_HEADS = _words(
    """Air Slick Mega Turbo Rocket Power Hyper Jet Ultra Sky Dyna Magno Quick Super Thunder Silent Golden
Spring Glide Snap Iron Feather Bounce Desert Wonder Steady Flash Moon Star Royal Canyon Cactus Zoom Nitro Giga Max
Super Easy Handy Robo Aero Hydro Omni Eco Pro Smart Magic Trail Storm Velvet Crystal Cosmo Vita"""
)
NAME_TAILS = _words(
    """Coat Pull Glide Grip Drop Lift Hook Net Wing Blast Leap Step Trap Fix Board Mate Master Shine Flow Dash
Boost Spin Roll Lock Catch Line Force Jump Cart Rope Wheel Seat Dust Foam Beam Wave Drill Chef Brush Pack Nest Cape
Strap Pad Gum Cloud Bolt Fan Track Sprint"""
)
NAME_NUMBERS = [
    "nine thousand",
    "two thousand",
    "five hundred",
    "3000",
    "500",
    "deluxe",
    "plus",
    "junior",
    "two",
    "for professionals",
    "XL",
]
GOODS: dict[str, list[str]] = {  # noun -> what he will do with it
    "ladder": ["climb above the road and step down onto {q}", "look over the whole canyon from the top rung"],
    "magnet": ["mix iron into the birdseed and pull {q} to me", "draw {q} across the desert without leaving my chair"],
    "net": ["hang it across the road and wait for {q}", "drop it from the cliff when {q} stops to eat"],
    "rope": ["swing down from the rock in front of {q}", "tie a clever loop where {q} always runs"],
    "skates": ["roll beside {q} all the way through the canyon", "be as fast as {q} for the first time"],
    "glue": ["paint the bend in the road and collect {q} in the evening", "make the road hold on to {q} for me"],
    "tent": ["hide beside the road until {q} walks in", "build an inn with one guest, and the guest is {q}"],
    "cape": ["fly over the cliff and land next to {q}", "glide down from the rock like a professional"],
    "fan": ["blow {q} back to where I am standing", "turn the wind of the canyon against {q}"],
    "blender": ["mix a dessert that {q} cannot pass by", "make birdseed soup so fine that {q} stays for dinner"],
    "vacuum cleaner": ["pull {q} off the road in one breath", "clean the road, and the bird with it"],
    "trampoline": ["bounce over the canyon and come down on {q}", "jump higher than {q} can run"],
    "telescope": ["see {q} an hour before it sees me", "know every step of {q} in advance"],
    "umbrella": ["float down from the cliff and surprise {q}", "stay dry, calm and ready for {q}"],
    "mattress": ["land softly when I leap at {q}", "sleep well and rise earlier than {q}"],
    "drill": ["dig a tunnel that ends right under {q}", "open the mountain and shorten the way to {q}"],
    "pan": ["cook a breakfast whose smell stops {q}", "hold the sun in it and blind {q} for a moment"],
    "spray": ["make the road as smooth as ice under {q}", "cover the bend so that {q} slides into my arms"],
    "bicycle": ["overtake {q} before the second bend", "ride next to {q} and simply reach out"],
    "catapult": ["throw myself over the canyon to {q}", "send a polite boulder in front of {q}"],
    "chair": ["wait in comfort until {q} gets tired", "plan the whole hunt without a sore back"],
    "camera": ["study how {q} takes the bends", "photograph {q} while it stands still to smile"],
    "boots": ["leap from rock to rock and meet {q} at the bridge", "outrun {q} with springs under my feet"],
    "balloon": ["float above {q} and come down at the right moment", "let {q} run while I simply drift ahead"],
}
ANY_USE = [
    "close the last gap between me and {q}",
    "finally be one step ahead of {q}",
    "stop {q} at the bend in the road",
    "bring {q} to my table before the evening",
    "take {q} by surprise at the bridge",
    "make {q} slow down for once",
]
QUARRY = ["the Roadrunner", "the Roadrunner", "that bird", "the bird", "the fast bird"]
AD_FACTS = _phrases("""
comes in three colours|folds flat in a second|needs no batteries|works on every surface|is made of real steel
holds three hundred pounds|cleans itself|fits under any bed|is strong enough for a truck|has a lifetime guarantee
can be washed by hand|weighs less than a cup of tea|is used by professionals everywhere|comes with a free bag|glows in the dark
never needs oil|is quiet as a mouse|is now with lemon|has eleven speeds|was tested in the desert|folds into your pocket
lasts for a hundred years|comes in a wooden box|opens by itself|has a handle for the left hand""")
AD_STARTS = _phrases("""
ladies and gentlemen|only today|you will not believe it|and now the moment you waited for|listen to this|once in a lifetime
look at that|my friends|and that is not all|stop everything|just imagine|I use it myself every day""")
AD_ENDS = _phrases("""
two easy payments|call now|only nineteen ninety-nine|while stocks last|order in the next ten minutes|three easy payments
shipping is free|and you get a second one for nothing|money back if you are not happy|operators are waiting""")
PRAISE = [
    "is exactly what I have been missing",
    "is the answer to all my plans",
    "was made for a genius like me",
    "is a fine piece of engineering, and I know engineering",
    "is the missing piece of my plan",
    "deserves an owner of my talent",
    "is worth every coin I have",
    "is just what my plan needed",
]
PROUD_ENDS = [
    "This time nothing can go wrong.",
    "My plan is perfect.",
    "I have already ordered two.",
    "Dinner is at eight.",
    "A genius does not look at the price.",
    "I only hope that it arrives before noon.",
    "Please stand back and admire me.",
    "I have read the manual, or at least its cover.",
    "",
]
BLAME = [
    "the ground",
    "the wind",
    "the manual",
    "the postman",
    "gravity",
    "the canyon",
    "the weather",
    "the sun",
    "the instructions",
    "the other coyote on the picture",
]
REMARKS: dict[str, tuple[list[str], list[str]]] = {  # topic -> (what the friend says, what the coyote answers)
    "failed": (
        [
            "But you bought {a} {n} last week and you fell off it.",
            "Your {n} did not work at all.",
            "The last {n} broke after one minute.",
            "Did the {n} not explode yesterday?",
            "You had {a} {n} before and it was a disaster.",
            "I saw you crash with the {n}.",
        ],
        [
            "The {n} was perfect, I assure you; {b} was at fault.",
            "I did not fail with the {n}; {b} failed me.",
            "My {n} worked as planned until {b} got in the way.",
            "I blame {b} and not the {n}, which I still admire.",
        ],
    ),
    "price": (
        [
            "How much did the {n} cost you?",
            "How can you pay for {a} {n}?",
            "Is {a} {n} not too expensive?",
            "What do you spend on things like the {n} every month?",
        ],
        [
            "I call the {n} an investment; one bird pays for everything.",
            "My {n} costs little compared with my future dinner.",
            "I never count coins when I buy {a} {n}; I count birds.",
            "I pay for the {n} in easy payments, like every great mind.",
        ],
    ),
    "doubt": (
        [
            "Maybe the bird is just faster than you and your {n}.",
            "I do not think that {a} {n} will help.",
            "Why would {a} {n} catch a bird?",
            "Nobody ever caught a bird with {a} {n}.",
            "Are you sure about the {n}?",
        ],
        [
            "Faster? I am merely early, and with my {n} I will be early and fast.",
            "I am quite sure: with the {n} I cannot lose.",
            "I forgive your doubt, since you have never owned {a} {n}.",
            "My {n} and I will show you before sunset.",
        ],
    ),
    "rest": (
        [
            "Put the {n} away and come to lunch.",
            "Should we not rest and forget the {n}?",
            "Why do you not sell the {n} and eat with us?",
            "Leave the {n} and take a day off.",
        ],
        [
            "I shall rest when my {n} has brought the bird home.",
            "Thank you, but I and my {n} have an appointment.",
            "I would gladly come, but I cannot leave my {n} alone.",
            "After the hunt I will invite you, and my {n} will serve.",
        ],
    ),
}
