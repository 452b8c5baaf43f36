"""The texts of a site: @NAME@ is the model's name, @MODEL@ its file."""

from __future__ import annotations

__all__ = ["BEFORE_SCRIPTS", "POLICY", "ORT_LICENSE", "README"]

#: What the page says until its scripts run; browsers do not load them from a file:// address.
BEFORE_SCRIPTS = (
    "Loading. If this text stays: the page needs JavaScript, and a host of static files; opened as a file, it cannot "
    "load its scripts. README.md beside it says how to serve it."
)

#: Content-Security-Policy: scripts, workers and requests of this site only.
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; connect-src 'self'; "
    "style-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'none'"
)

README = """# @NAME@ in the browser

Written by `lidcam web`. The page runs @MODEL@ in the visitor's browser with ONNX Runtime Web: nothing runs on a server,
and no picture leaves the browser. Any host of static files can serve this folder; opened as a file:// address the page
does not work, because browsers load no modules from there. On this machine:

    python -m http.server 8000 --bind 127.0.0.1 --directory .

and open http://127.0.0.1:8000/.

Threads: a browser gives WebAssembly more than one thread only if the host sends these two headers with every file:

    Cross-Origin-Opener-Policy: same-origin
    Cross-Origin-Embedder-Policy: require-corp

static/ort/ is ONNX Runtime Web, unchanged, under the MIT licence (static/ort/LICENSE). model.json lists the files of
the site, and states the licence of the model's weights where that is known.
"""

ORT_LICENSE = """ONNX Runtime Web @VERSION@ (onnxruntime-web on npmjs.com)
The notices of what it contains: https://github.com/microsoft/onnxruntime/blob/v@VERSION@/ThirdPartyNotices.txt

MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""
