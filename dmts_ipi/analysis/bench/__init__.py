"""Tables 1 to 7 of seeds/000 from run folders: cells, stability, published figures, output."""
