"""How an answer compares with a reference: texts in, figures out; no model is known here."""
