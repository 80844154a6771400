"""What the dialects' requests and answers share; what is a dialect's own lies in its room.

Each field of a dialect is in exactly one of three groups: *obeyed* (a plain field of its class), *harmless* (a field
named in the class's `harmless`: accepted, because it changes nothing about an answer here), or *refused by name* (named
in `refused`). A field in none of them is unknown, and refused by name too. null means "not given" for every optional
field, as OpenAI's clients send it."""
