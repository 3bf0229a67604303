"""What a speech-to-text model listened to for each token, and what its cross-attention tells.

Imported by fairseq (``--user-dir fbk_xattn``) it registers the tasks, models, criterions and
schedulers. Imported without fairseq, to read a store or to analyse it, it registers nothing and
needs neither fairseq nor torch.
"""

import sys

__version__ = "0.1.0"

# fairseq imports a user directory, so it is always loaded by then. Anybody else who wants the
# registrations says `import fbk_xattn.plugin`.
if "fairseq" in sys.modules:
    from fbk_xattn import plugin as plugin
