document.querySelectorAll('button[data-copy]').forEach(function (b) {
  b.addEventListener('click', function () {
    var t = document.getElementById(b.dataset.copy), rows = t.rows ? Array.from(t.rows) : null;
    var text = rows ? rows.map(function (r) { return Array.from(r.cells).map(function (c) {
      return c.innerText.trim(); }).join('\t'); }).join('\n') : t.innerText;
    var done = function () { b.textContent = 'Copied'; };
    var old = function () { var a = document.createElement('textarea'); a.value = text;
      document.body.append(a); a.select(); document.execCommand('copy'); a.remove(); done(); };
    if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, old); else old();
  });
});
