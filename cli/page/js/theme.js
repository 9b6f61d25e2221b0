// The theme that was chosen, before anything is drawn: no module, as those wait.
'use strict';
try {
  const theme = localStorage.getItem('theme');
  if (theme) document.documentElement.dataset.theme = theme;
} catch {
  // A browser may allow no storage.
}
