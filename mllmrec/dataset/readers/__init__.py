"""Read the files of a shop: one reader for tables, Amazon dumps, RecBole files and folders of the MMRec toolbox.

files         choose the files that are meant, or name the candidates and stop
reading       open text: gzip, UTF-16, line ends, limits
delimited     csv and tsv -> cells with their line
formats       any file -> columns or objects with their line
columns       columns -> roles (user, item, rating, ...)
values times  cells -> ids, numbers, prices, literals, times
interactions  files -> one table of interactions
items         file -> one table of items
mmrec         numbers of the MMRec toolbox -> ids and feature rows
shop          folder -> Source
"""
