"""The board's pages, one file each: `show` asks for the filters, `blocks` makes what is seen."""
