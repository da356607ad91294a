"""A browser for tests of pages."""

import json
import re
import shutil
import subprocess

import pytest

# Clicks on the heads of the list of frames and of the first table, then puts what it saw in place of the page.
PROBE = """
<script>
const look = () => {
  const seen = {errors: window.seenErrors, sorted: {}};
  seen.images = [...document.images].map(image => [image.naturalWidth, image.alt !== ""]);
  seen.requests = performance.getEntriesByType("resource").map(e => e.name).filter(n => !n.startsWith("data:"));
  const names = table => [...table.tBodies[0].rows].map(row => row.cells[0].textContent);
  for (const [id, errors] of [["#frames table", 2], ["main > section table", 1]]) {
    const table = document.querySelector(id);
    const orders = [["", names(table), ""]];
    for (const column of [errors, errors, 0, 0]) {
      const head = table.tHead.rows[0].cells[column];
      head.querySelector("button").click();
      orders.push([head.textContent, names(table), head.getAttribute("aria-sort")]);
    }
    seen.sorted[id] = orders;
  }
  seen.wider = wider();
  seen.ids = [...document.querySelectorAll("[id]")].map(e => e.id);
  seen.links = [...document.querySelectorAll("a[href^='#']")].map(a => a.getAttribute("href").slice(1));
  seen.names = [...document.querySelectorAll("svg.plot")].map(svg => document.getElementById(svg.getAttribute("aria-labelledby")).textContent);
  document.body.replaceChildren();
  document.body.textContent = "SEEN" + JSON.stringify(seen).replaceAll("<", "\\\\u003c") + "SEEN";
};
const wider = () => document.documentElement.scrollWidth - document.documentElement.clientWidth;
// The layout asks for the styles' images; what comes of that is reported a little later.
addEventListener("load", () => { wider(); setTimeout(look, 200); });
</script>
</body>
"""
LISTENER = """<head>
<script>
window.seenErrors = [];
addEventListener("error", event => seenErrors.push(String(event.message)), true);
addEventListener("securitypolicyviolation", event => seenErrors.push("blocked " + event.blockedURI));
for (const kind of ["error", "warn"]) console[kind] = (...what) => seenErrors.push(what.join(" "));
</script>
"""


@pytest.fixture
def in_chromium(tmp_path):
    """Function from a page's file to what headless Chromium finds in it; skips the test where there is none."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium on this machine to open the page with")

    def find(page, width=1400, addition=""):
        source = page.read_text(encoding="utf-8")
        probed = tmp_path / f"probed_{width}.html"
        source = source.replace("<head>\n", LISTENER, 1).replace("</body>\n", addition + PROBE, 1)
        probed.write_text(source, encoding="utf-8")
        command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]
        command += [
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
        ]
        command += ["--disable-sync", f"--user-data-dir={tmp_path / f'profile_{width}'}"]
        command += [f"--window-size={width},900", "--virtual-time-budget=10000"]
        command += ["--dump-dom", probed.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        found = re.search("<body>SEEN(.*)SEEN</body>", done.stdout, re.DOTALL)
        assert found, f"{done.returncode}: {done.stdout[-500:]} {done.stderr[-500:]}"
        text = found.group(1).replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&")
        return json.loads(text)

    return find
