"""The words of the invented shop: departments, shelves, colours, makers. Data, no chance."""

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
class Shelf:
    """One shelf: what its goods usually cost, what they are made of, what they are called."""

    usual_price: float
    materials: tuple[str, ...]
    nouns: tuple[str, ...]


def _shelf(usual_price: float, materials: str, nouns: str) -> Shelf:
    return Shelf(usual_price, _words(materials), tuple(nouns.split(", ")))


DEPARTMENTS: dict[str, dict[str, Shelf]] = {
    "Kitchen": {
        "Coffee": _shelf(48, "steel copper glass", "coffee grinder, moka pot, drip kettle"),
        "Tea": _shelf(32, "porcelain cast-iron glass", "teapot, tea infuser, tea caddy"),
        "Knives": _shelf(75, "carbon-steel damask ceramic", "chef's knife, bread knife, cleaver"),
        "Pans": _shelf(60, "cast-iron copper enamel", "frying pan, saucepan, wok"),
        "Baking": _shelf(22, "silicone tin stoneware", "cake tin, loaf tin, muffin tray"),
        "Storage": _shelf(18, "glass bamboo steel", "storage jar, bread bin, lunch box"),
        "Glassware": _shelf(26, "crystal recycled-glass", "wine glass, tumbler, carafe"),
        "Mills": _shelf(30, "beech acrylic steel", "pepper mill, salt mill, spice mill"),
    },
    "Outdoor": {
        "Tents": _shelf(240, "nylon canvas polyester", "two-person tent, tunnel tent, tarp"),
        "Sleeping bags": _shelf(120, "down fleece nylon", "sleeping bag, camp quilt, bag liner"),
        "Backpacks": _shelf(95, "ripstop canvas nylon", "hiking backpack, daypack, dry bag"),
        "Stoves": _shelf(55, "titanium brass steel", "camp stove, gas burner, mess kit"),
        "Lamps": _shelf(34, "aluminium rubber steel", "headlamp, camp lantern, torch"),
        "Climbing": _shelf(70, "aluminium nylon", "climbing harness, carabiner set, chalk bag"),
        "Paddling": _shelf(180, "carbon plywood nylon", "kayak paddle, spray skirt, float vest"),
        "Maps": _shelf(28, "brass paper waxed", "compass, map case, trail atlas"),
    },
    "Music": {
        "Guitars": _shelf(
            420, "mahogany maple spruce", "acoustic guitar, electric guitar, ukulele"
        ),
        "Keyboards": _shelf(380, "walnut aluminium", "stage piano, synthesizer, midi keyboard"),
        "Drums": _shelf(260, "birch maple brass", "snare drum, cajon, cymbal"),
        "Strings": _shelf(300, "spruce maple ebony", "violin, viola, cello bow"),
        "Winds": _shelf(210, "silver rosewood brass", "flute, clarinet, trumpet"),
        "Microphones": _shelf(130, "steel brass", "studio microphone, mic stand, pop filter"),
        "Amplifiers": _shelf(
            290, "tweed plywood steel", "valve amplifier, practice amp, speaker cabinet"
        ),
        "Turntables": _shelf(
            230, "walnut acrylic aluminium", "turntable, phono stage, record crate"
        ),
    },
    "Garden": {
        "Hand tools": _shelf(24, "steel ash-wood copper", "trowel, hand fork, weeder"),
        "Pots": _shelf(29, "terracotta stone zinc", "plant pot, window box, hanging basket"),
        "Watering": _shelf(33, "zinc copper rubber", "watering can, garden hose, sprinkler"),
        "Pruning": _shelf(42, "steel titanium", "secateurs, loppers, hedge shears"),
        "Birds": _shelf(27, "cedar ceramic", "bird feeder, nest box, bird bath"),
        "Grills": _shelf(190, "steel cast-iron ceramic", "charcoal grill, fire bowl, smoker"),
        "Seating": _shelf(150, "teak rattan aluminium", "garden bench, deck chair, hammock"),
        "Greenhouses": _shelf(
            210, "glass cedar aluminium", "greenhouse, cold frame, potting table"
        ),
    },
    "Home office": {
        "Desks": _shelf(330, "oak bamboo steel", "standing desk, writing desk, desk riser"),
        "Chairs": _shelf(260, "mesh leather wool", "office chair, kneeling chair, desk stool"),
        "Desk lamps": _shelf(62, "brass aluminium opal", "desk lamp, clamp lamp, light bar"),
        "Notebooks": _shelf(14, "linen leather paper", "notebook, day planner, sketch pad"),
        "Pens": _shelf(36, "brass resin steel", "fountain pen, ballpoint, pencil set"),
        "Shelving": _shelf(140, "oak steel pine", "bookcase, wall shelf, filing cabinet"),
        "Keys and mice": _shelf(
            85, "aluminium walnut", "mechanical keyboard, trackball, wrist rest"
        ),
        "Monitors": _shelf(310, "aluminium matte", "wide monitor, monitor arm, webcam"),
    },
    "Bedroom": {
        "Duvets": _shelf(110, "down wool bamboo", "duvet, duvet cover, weighted blanket"),
        "Pillows": _shelf(45, "down latex buckwheat", "side pillow, neck pillow, bolster"),
        "Mattresses": _shelf(520, "latex wool foam", "mattress, mattress topper, futon"),
        "Bed frames": _shelf(430, "oak pine steel", "bed frame, headboard, daybed"),
        "Wardrobes": _shelf(390, "oak birch rattan", "wardrobe, clothes rail, dresser"),
        "Alarm clocks": _shelf(38, "brass walnut", "alarm clock, sunrise clock, travel clock"),
        "Curtains": _shelf(
            65, "linen velvet cotton", "blackout curtain, net curtain, roller blind"
        ),
        "Mirrors": _shelf(98, "brass oak rattan", "wall mirror, floor mirror, vanity mirror"),
    },
    "Sports": {
        "Running": _shelf(105, "mesh knit gel", "running shoe, trail shoe, hydration vest"),
        "Cycling": _shelf(88, "carbon leather alloy", "bike helmet, saddle, handlebar bag"),
        "Yoga": _shelf(39, "cork rubber cotton", "yoga mat, yoga block, meditation cushion"),
        "Swimming": _shelf(31, "silicone mesh neoprene", "swim goggles, swim cap, kickboard"),
        "Tennis": _shelf(125, "graphite felt carbon", "tennis racket, racket bag, string reel"),
        "Football": _shelf(52, "leather knit", "football, shin guards, goalkeeper gloves"),
        "Weights": _shelf(76, "cast-iron vinyl steel", "dumbbell, kettlebell, barbell"),
        "Skiing": _shelf(270, "ash-wood carbon", "touring skis, ski poles, ski goggles"),
    },
    "Toys": {
        "Blocks": _shelf(35, "beech magnetic cork", "building blocks, marble run, stacking tower"),
        "Puzzles": _shelf(21, "cardboard wooden", "jigsaw puzzle, puzzle cube, brain teaser"),
        "Board games": _shelf(37, "linen wooden", "strategy game, family game, card game"),
        "Dolls": _shelf(43, "cotton felt wooden", "rag doll, doll house, doll pram"),
        "Trains": _shelf(58, "beech die-cast", "toy train, railway set, signal tower"),
        "Plush": _shelf(25, "mohair plush wool", "teddy bear, plush fox, plush rabbit"),
        "Kites": _shelf(41, "ripstop silk", "stunt kite, box kite, wind spinner"),
        "Science": _shelf(64, "brass acrylic", "microscope kit, crystal kit, telescope"),
    },
    "Clothing": {
        "Coats": _shelf(210, "wool waxed-cotton down", "trench coat, parka, pea coat"),
        "Knitwear": _shelf(85, "merino cashmere alpaca", "pullover, cardigan, knitted vest"),
        "Shirts": _shelf(58, "linen oxford flannel", "button shirt, work shirt, polo shirt"),
        "Trousers": _shelf(79, "denim corduroy twill", "jeans, chinos, dungarees"),
        "Dresses": _shelf(96, "silk linen jersey", "summer dress, wrap dress, shirt dress"),
        "Socks": _shelf(13, "merino cotton bamboo", "crew socks, hiking socks, knee socks"),
        "Hats": _shelf(34, "felt straw wool", "bucket hat, beanie, flat cap"),
        "Scarves": _shelf(44, "silk cashmere mohair", "scarf, shawl, bandana"),
    },
    "Bags and travel": {
        "Suitcases": _shelf(190, "aluminium polycarbonate", "cabin suitcase, trunk, garment bag"),
        "Handbags": _shelf(145, "leather canvas raffia", "tote bag, shoulder bag, clutch"),
        "Wallets": _shelf(48, "leather cork", "wallet, card holder, coin purse"),
        "Briefcases": _shelf(175, "leather felt waxed", "briefcase, laptop sleeve, satchel"),
        "Umbrellas": _shelf(37, "bamboo fibreglass", "stick umbrella, folding umbrella, parasol"),
        "Flasks": _shelf(29, "steel titanium glass", "vacuum flask, water bottle, travel mug"),
        "Organisers": _shelf(23, "nylon mesh", "packing cube, cable pouch, wash bag"),
        "Watches": _shelf(230, "steel titanium ceramic", "field watch, diver watch, dress watch"),
    },
    "Workshop": {
        "Drills": _shelf(130, "brushless cordless", "hammer drill, drill driver, bit set"),
        "Saws": _shelf(90, "carbon-steel beech", "jigsaw, hand saw, mitre box"),
        "Planes": _shelf(105, "bronze iron beech", "block plane, spokeshave, jointer plane"),
        "Chisels": _shelf(46, "carbon-steel ash-wood", "bench chisel, gouge, carving set"),
        "Clamps": _shelf(27, "aluminium iron", "bar clamp, bench vise, spring clamp"),
        "Measuring": _shelf(33, "brass steel", "tape measure, spirit level, caliper"),
        "Benches": _shelf(280, "beech steel maple", "work bench, saw horse, tool trolley"),
        "Sanding": _shelf(68, "cork cordless", "orbital sander, sanding block, polisher"),
    },
    "Arts": {
        "Paints": _shelf(39, "oil acrylic gouache", "paint set, paint tube, pigment jar"),
        "Brushes": _shelf(24, "sable hog-hair synthetic", "round brush, fan brush, palette knife"),
        "Easels": _shelf(115, "beech aluminium", "studio easel, field easel, drawing board"),
        "Yarn": _shelf(17, "merino alpaca cotton", "yarn skein, knitting needles, crochet hook"),
        "Sewing": _shelf(150, "cast-iron steel", "sewing machine, dress form, fabric shears"),
        "Pottery": _shelf(86, "stoneware birch", "pottery wheel, glaze kit, modelling clay"),
        "Printing": _shelf(72, "linoleum rubber", "lino press, ink roller, stamp set"),
        "Calligraphy": _shelf(31, "brass cedar", "dip pen, ink stone, nib set"),
    },
}
