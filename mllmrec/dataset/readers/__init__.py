"""Read the files of a shop: tables, Amazon dumps, folders of the MMRec toolbox."""
