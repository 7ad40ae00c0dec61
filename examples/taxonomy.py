"""Vocabulary of the generated shop: departments, categories, colours, brands."""

from dataclasses import dataclass

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "black": (38, 38, 44),
    "ivory": (243, 236, 214),
    "slate": (112, 128, 144),
    "crimson": (190, 30, 56),
    "orange": (240, 130, 40),
    "mustard": (222, 182, 50),
    "olive": (120, 136, 50),
    "teal": (20, 150, 150),
    "navy": (30, 50, 130),
    "plum": (120, 50, 130),
    "rose": (240, 140, 170),
    "brown": (125, 80, 45),
}


def _words(line: str) -> tuple[str, ...]:
    return tuple(line.split())


BRANDS = _words(
    "Harbrook Velloni Tarnby Ostrava-Lund Quillon Bramwick Fenmoor Solvane Kestrin Averdale "
    "Nordhage Pelloux Wickstead Marlund Ilvara Dunmere Castelby Orrin Thistledown Zephira "
    "Lomarsh Brevik Cantrelle Hollin Ravenna-Oak Sundholm Tessaly Umberly Vantor Yarrowby"
)
SERIES = _words(
    "Fjord Ember Willow Atlas Comet Harbour Juniper Lark Meridian Nimbus Orchard Pioneer "
    "Quarry Ripple Saga Tundra Union Vesper Wren Zenith Birch Cinder Delta Echo"
)


@dataclass(frozen=True)
class CategoryTemplate:
    """Usual price, materials and nouns of a category's items."""

    usual_price: float
    materials: tuple[str, ...]
    nouns: tuple[str, ...]


def _category(usual_price: float, materials: str, nouns: str) -> CategoryTemplate:
    return CategoryTemplate(usual_price, _words(materials), tuple(nouns.split(", ")))


DEPARTMENTS: dict[str, dict[str, CategoryTemplate]] = {
    "Kitchen": {
        "Coffee": _category(48, "steel copper glass", "coffee grinder, moka pot, drip kettle"),
        "Tea": _category(32, "porcelain cast-iron glass", "teapot, tea infuser, tea caddy"),
        "Knives": _category(
            75, "carbon-steel damask ceramic", "chef's knife, bread knife, cleaver"
        ),
        "Pans": _category(60, "cast-iron copper enamel", "frying pan, saucepan, wok"),
        "Baking": _category(22, "silicone tin stoneware", "cake tin, loaf tin, muffin tray"),
        "Storage": _category(18, "glass bamboo steel", "storage jar, bread bin, lunch box"),
        "Glassware": _category(26, "crystal recycled-glass", "wine glass, tumbler, carafe"),
        "Mills": _category(30, "beech acrylic steel", "pepper mill, salt mill, spice mill"),
    },
    "Outdoor": {
        "Tents": _category(240, "nylon canvas polyester", "two-person tent, tunnel tent, tarp"),
        "Sleeping bags": _category(120, "down fleece nylon", "sleeping bag, camp quilt, bag liner"),
        "Backpacks": _category(95, "ripstop canvas nylon", "hiking backpack, daypack, dry bag"),
        "Stoves": _category(55, "titanium brass steel", "camp stove, gas burner, mess kit"),
        "Lamps": _category(34, "aluminium rubber steel", "headlamp, camp lantern, torch"),
        "Climbing": _category(70, "aluminium nylon", "climbing harness, carabiner set, chalk bag"),
        "Paddling": _category(180, "carbon plywood nylon", "kayak paddle, spray skirt, float vest"),
        "Maps": _category(28, "brass paper waxed", "compass, map case, trail atlas"),
    },
    "Music": {
        "Guitars": _category(
            420, "mahogany maple spruce", "acoustic guitar, electric guitar, ukulele"
        ),
        "Keyboards": _category(380, "walnut aluminium", "stage piano, synthesizer, midi keyboard"),
        "Drums": _category(260, "birch maple brass", "snare drum, cajon, cymbal"),
        "Strings": _category(300, "spruce maple ebony", "violin, viola, cello bow"),
        "Winds": _category(210, "silver rosewood brass", "flute, clarinet, trumpet"),
        "Microphones": _category(130, "steel brass", "studio microphone, mic stand, pop filter"),
        "Amplifiers": _category(
            290, "tweed plywood steel", "valve amplifier, practice amp, speaker cabinet"
        ),
        "Turntables": _category(
            230, "walnut acrylic aluminium", "turntable, phono stage, record crate"
        ),
    },
    "Garden": {
        "Hand tools": _category(24, "steel ash-wood copper", "trowel, hand fork, weeder"),
        "Pots": _category(29, "terracotta stone zinc", "plant pot, window box, hanging basket"),
        "Watering": _category(33, "zinc copper rubber", "watering can, garden hose, sprinkler"),
        "Pruning": _category(42, "steel titanium", "secateurs, loppers, hedge shears"),
        "Birds": _category(27, "cedar ceramic", "bird feeder, nest box, bird bath"),
        "Grills": _category(190, "steel cast-iron ceramic", "charcoal grill, fire bowl, smoker"),
        "Seating": _category(150, "teak rattan aluminium", "garden bench, deck chair, hammock"),
        "Greenhouses": _category(
            210, "glass cedar aluminium", "greenhouse, cold frame, potting table"
        ),
    },
    "Home office": {
        "Desks": _category(330, "oak bamboo steel", "standing desk, writing desk, desk riser"),
        "Chairs": _category(260, "mesh leather wool", "office chair, kneeling chair, desk stool"),
        "Desk lamps": _category(62, "brass aluminium opal", "desk lamp, clamp lamp, light bar"),
        "Notebooks": _category(14, "linen leather paper", "notebook, day planner, sketch pad"),
        "Pens": _category(36, "brass resin steel", "fountain pen, ballpoint, pencil set"),
        "Shelving": _category(140, "oak steel pine", "bookcase, wall shelf, filing cabinet"),
        "Keys and mice": _category(
            85, "aluminium walnut", "mechanical keyboard, trackball, wrist rest"
        ),
        "Monitors": _category(310, "aluminium matte", "wide monitor, monitor arm, webcam"),
    },
    "Bedroom": {
        "Duvets": _category(110, "down wool bamboo", "duvet, duvet cover, weighted blanket"),
        "Pillows": _category(45, "down latex buckwheat", "side pillow, neck pillow, bolster"),
        "Mattresses": _category(520, "latex wool foam", "mattress, mattress topper, futon"),
        "Bed frames": _category(430, "oak pine steel", "bed frame, headboard, daybed"),
        "Wardrobes": _category(390, "oak birch rattan", "wardrobe, clothes rail, dresser"),
        "Alarm clocks": _category(38, "brass walnut", "alarm clock, sunrise clock, travel clock"),
        "Curtains": _category(
            65, "linen velvet cotton", "blackout curtain, net curtain, roller blind"
        ),
        "Mirrors": _category(98, "brass oak rattan", "wall mirror, floor mirror, vanity mirror"),
    },
    "Sports": {
        "Running": _category(105, "mesh knit gel", "running shoe, trail shoe, hydration vest"),
        "Cycling": _category(88, "carbon leather alloy", "bike helmet, saddle, handlebar bag"),
        "Yoga": _category(39, "cork rubber cotton", "yoga mat, yoga block, meditation cushion"),
        "Swimming": _category(31, "silicone mesh neoprene", "swim goggles, swim cap, kickboard"),
        "Tennis": _category(125, "graphite felt carbon", "tennis racket, racket bag, string reel"),
        "Football": _category(52, "leather knit", "football, shin guards, goalkeeper gloves"),
        "Weights": _category(76, "cast-iron vinyl steel", "dumbbell, kettlebell, barbell"),
        "Skiing": _category(270, "ash-wood carbon", "touring skis, ski poles, ski goggles"),
    },
    "Toys": {
        "Blocks": _category(
            35, "beech magnetic cork", "building blocks, marble run, stacking tower"
        ),
        "Puzzles": _category(21, "cardboard wooden", "jigsaw puzzle, puzzle cube, brain teaser"),
        "Board games": _category(37, "linen wooden", "strategy game, family game, card game"),
        "Dolls": _category(43, "cotton felt wooden", "rag doll, doll house, doll pram"),
        "Trains": _category(58, "beech die-cast", "toy train, railway set, signal tower"),
        "Plush": _category(25, "mohair plush wool", "teddy bear, plush fox, plush rabbit"),
        "Kites": _category(41, "ripstop silk", "stunt kite, box kite, wind spinner"),
        "Science": _category(64, "brass acrylic", "microscope kit, crystal kit, telescope"),
    },
    "Clothing": {
        "Coats": _category(210, "wool waxed-cotton down", "trench coat, parka, pea coat"),
        "Knitwear": _category(85, "merino cashmere alpaca", "pullover, cardigan, knitted vest"),
        "Shirts": _category(58, "linen oxford flannel", "button shirt, work shirt, polo shirt"),
        "Trousers": _category(79, "denim corduroy twill", "jeans, chinos, dungarees"),
        "Dresses": _category(96, "silk linen jersey", "summer dress, wrap dress, shirt dress"),
        "Socks": _category(13, "merino cotton bamboo", "crew socks, hiking socks, knee socks"),
        "Hats": _category(34, "felt straw wool", "bucket hat, beanie, flat cap"),
        "Scarves": _category(44, "silk cashmere mohair", "scarf, shawl, bandana"),
    },
    "Bags and travel": {
        "Suitcases": _category(
            190, "aluminium polycarbonate", "cabin suitcase, trunk, garment bag"
        ),
        "Handbags": _category(145, "leather canvas raffia", "tote bag, shoulder bag, clutch"),
        "Wallets": _category(48, "leather cork", "wallet, card holder, coin purse"),
        "Briefcases": _category(175, "leather felt waxed", "briefcase, laptop sleeve, satchel"),
        "Umbrellas": _category(
            37, "bamboo fibreglass", "stick umbrella, folding umbrella, parasol"
        ),
        "Flasks": _category(29, "steel titanium glass", "vacuum flask, water bottle, travel mug"),
        "Organisers": _category(23, "nylon mesh", "packing cube, cable pouch, wash bag"),
        "Watches": _category(
            230, "steel titanium ceramic", "field watch, diver watch, dress watch"
        ),
    },
    "Workshop": {
        "Drills": _category(130, "brushless cordless", "hammer drill, drill driver, bit set"),
        "Saws": _category(90, "carbon-steel beech", "jigsaw, hand saw, mitre box"),
        "Planes": _category(105, "bronze iron beech", "block plane, spokeshave, jointer plane"),
        "Chisels": _category(46, "carbon-steel ash-wood", "bench chisel, gouge, carving set"),
        "Clamps": _category(27, "aluminium iron", "bar clamp, bench vise, spring clamp"),
        "Measuring": _category(33, "brass steel", "tape measure, spirit level, caliper"),
        "Benches": _category(280, "beech steel maple", "work bench, saw horse, tool trolley"),
        "Sanding": _category(68, "cork cordless", "orbital sander, sanding block, polisher"),
    },
    "Arts": {
        "Paints": _category(39, "oil acrylic gouache", "paint set, paint tube, pigment jar"),
        "Brushes": _category(
            24, "sable hog-hair synthetic", "round brush, fan brush, palette knife"
        ),
        "Easels": _category(115, "beech aluminium", "studio easel, field easel, drawing board"),
        "Yarn": _category(17, "merino alpaca cotton", "yarn skein, knitting needles, crochet hook"),
        "Sewing": _category(150, "cast-iron steel", "sewing machine, dress form, fabric shears"),
        "Pottery": _category(86, "stoneware birch", "pottery wheel, glaze kit, modelling clay"),
        "Printing": _category(72, "linoleum rubber", "lino press, ink roller, stamp set"),
        "Calligraphy": _category(31, "brass cedar", "dip pen, ink stone, nib set"),
    },
}
