"""Reports: what the notebooks show, the terminal monitor, and the summary that the command prints.

`progress` and `quality` read a run and draw it; `page`, `figure` and `css` define how reports look; `export` turns a
saved notebook into one HTML file. Nothing here changes a run.
"""
