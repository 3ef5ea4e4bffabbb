// What is scrolled sideways is reached by keyboard, and what is not is passed over.
const sizes = new ResizeObserver((changes) => {
  for (const { target } of changes) {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});
for (const one of document.querySelectorAll("pre, .table-wrapper, article p:has(> img)")) sizes.observe(one);
