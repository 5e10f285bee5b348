"""`top`: the jobs of now, live.

view     what is chosen: order, filter, selection, question; pure
keys     bytes typed → names of keys; pure
page     the view and a sample → lines of exactly the terminal's width; pure
screen   lines → as few bytes as change what is on the terminal
host     the machine's own figures
live     the loop: samples, keys, orders to the daemon
"""
