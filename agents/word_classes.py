"""Closed word classes and small word lists of five languages, for finding answers in sentences by code.

Languages share one table: which language a text is in need not be known, and the few words that stand in two
classes ("die", "des", "me") are kept in the one that costs least.
"""

from __future__ import annotations

__all__ = [
    "COLOURS",
    "NUMBERS",
    "TIME_WORDS",
    "WIDE_FUNCTION",
    "WIDE_NUMBERS",
    "WIDE_UNITS",
    "WORD_CLASSES",
]

_CLASSES = {
    "article": """
a an the this that these those his her its their our your my some any each every
der die das den dem des ein eine einen einem einer eines dieser diese dieses diesen sein seine seinen seiner ihr ihre
ihren ihrer unser mein jeder jede jedes
le la les l' un une des du ce cet cette ces son sa ses leur leurs mon ma mes notre votre chaque
el los las lo una unos unas este esta estos estas ese esa su sus mi mis nuestro nuestra cada al del
""",
    "place": """
in at on upon under beneath behind beside beyond above below near inside outside into onto over across along
around through between among against off toward towards
an auf unter hinter neben über vor zwischen bei im am ins zum zur
dans sur sous derrière devant chez vers entre près hors
en sobre bajo tras ante entre hacia junto dentro fuera cerca
""",
    "of": "of von vom de d'",
    "to": "to zu nach à au aux a para",
    "by": "by durch par por",
    "with": "with without mit ohne avec sans con sin",
    "from": "from out aus seit depuis desde",
    "for": "for für pour",
    "as": "as like als wie comme como",
    "during": """
during since until till before after about than despite besides within während bis gegen um pendant jusque durante
hasta según
""",
    "cause": "because so denn weil da damit car parce puisque porque pues",
    "conjunction": "and or but nor und oder aber sondern et ou mais y e o u pero sino",
    "clause": """
who whom whose which what where when while how why if though although whether
wer wem wen was wo wann warum wenn ob dass daß welche welcher welches obwohl während
qui que quoi dont où quand lorsque si comment
que quien quienes cual cuales donde cuando si cómo
""",
    "pronoun": """
i he she it we you they me him them us himself herself itself themselves there one
ich er sie es wir man sich ihm ihn ihnen uns mich mir dich
je il elle on nous vous ils elles se y me te lui leur ça cela
yo él ella ellos ellas nosotros se le les me te
""",
    "auxiliary": """
is are was were be been being am has have had having do does did will would can could shall should may might must
ist sind war waren wird werden wurde wurden worden hat haben hatte hatten kann konnte soll sollte muss musste sei
est sont était étaient fut furent été être a ont avait avaient sera peut
es son era eran fue fueron sido ser está están estaba ha han había habían hay puede será
""",
    "adverb": """
not no never only also then now very too just still even again once here yet already more most all both such
nicht kein keine nie nur auch dann jetzt sehr noch schon wieder mehr hier so
ne pas jamais aussi alors très encore plus déjà ici tout tous toute toutes
no nunca sólo solo también entonces muy más ya aún aquí todo todos
""",
}


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


WORD_CLASSES = {word: name for name, words in _CLASSES.items() for word in reversed(words.split())}
"""The class of a lower-case word that is no content word."""

WIDE_FUNCTION = frozenset(
    "的了是在和与及为被把从到对于以而其之由将也都就但或有他她它们这那个并等所則则因后後時时上中里裡內内"
)
"""Chinese characters at which a phrase may begin or end."""

WIDE_NUMBERS = frozenset("零一二三四五六七八九十百千万亿两几〇萬億兩")

WIDE_UNITS = frozenset("年月日号世纪岁人名个次米里元度分秒时天周届场座家只条位件部")
"""Characters that stand behind a number."""

NUMBERS = _set(
    """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion dozen half
quarter twice first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth twentieth
zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn zwanzig dreißig vierzig fünfzig sechzig siebzig
achtzig neunzig hundert tausend million millionen milliarden hälfte viertel deux trois quatre cinq six sept huit neuf
dix onze douze treize quatorze quinze seize vingt trente quarante cinquante soixante cent mille million millions
moitié douzaine dos tres cuatro cinco seis siete ocho nueve diez once doce trece quince veinte treinta cuarenta
cincuenta sesenta setenta ochenta noventa cien ciento mil millón millones mitad docena
"""
)

TIME_WORDS = _set(
    """
january february march april june july august september october november december monday tuesday wednesday thursday
friday saturday sunday morning noon evening night midnight dawn summer winter spring autumn century januar februar
märz mai juni juli oktober dezember montag dienstag mittwoch donnerstag freitag samstag sonntag morgen mittag abend
nacht sommer winter frühling herbst jahrhundert janvier février mars avril juin juillet août septembre octobre
novembre décembre lundi mardi mercredi jeudi vendredi samedi dimanche matin midi soir nuit été hiver printemps automne
siècle enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre lunes martes miércoles
jueves viernes sábado domingo mañana mediodía tarde noche verano invierno primavera otoño siglo
"""
)

_GERMAN_COLOURS = "rot grün blau gelb weiß weiss schwarz grau braun rosa lila hell dunkel dunkl"

COLOURS = _set(
    """
red green blue yellow white black grey gray brown pink purple orange violet scarlet crimson golden silver gold pale
dark ivory amber turquoise rouge rouges vert verte verts bleu bleue bleus jaune jaunes blanc blanche blancs noir noire
noirs gris grise brun brune rose doré argenté rojo roja rojos verde verdes azul azules amarillo amarilla blanco blanca
blancos negro negra negros gris marrón rosado dorado plateado
红 绿 蓝 黄 白 黑 灰 紫 红色 绿色 蓝色 黄色 白色 黑色 灰色 紫色 金色 银色 橙色 粉红色
"""
) | {colour + ending for colour in _GERMAN_COLOURS.split() for ending in ("", "e", "en", "er", "es", "em")}
