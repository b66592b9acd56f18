// What scrolls can be scrolled by the keyboard, and the search has a name.
addEventListener("load", () => {
  for (const box of document.querySelectorAll(".md-typeset__scrollwrap, pre > code")) box.tabIndex = 0;
  document.querySelector(".md-search").ariaLabel = "Search";
});
