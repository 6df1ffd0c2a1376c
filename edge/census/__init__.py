"""Looks at how an app's data lie on its edges, before anything is learnt: counted, as a table, as a picture."""
