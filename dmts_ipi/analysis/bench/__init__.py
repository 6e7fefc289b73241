"""Tables 1 to 7 of DMTS-NC (DOI 10.1021/acs.jctc.6c00653) from run folders."""
