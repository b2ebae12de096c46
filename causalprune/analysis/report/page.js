"use strict";
(function () {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const narrow = window.matchMedia("(max-width: 560px)");
  // On a touch screen a finger that drags is to scroll the page.
  const touch = window.matchMedia("(pointer: coarse)").matches;
  const drawn = [];

  function color(name) {
    return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  }

  // What the style sheet decides, as paths into a layout.
  function themed() {
    const ink = color("ink"), grid = color("grid"), rule = color("rule"), page = color("page");
    const found = {
      "paper_bgcolor": page, "plot_bgcolor": page, "font.color": ink,
      "hoverlabel.bgcolor": page, "hoverlabel.bordercolor": rule, "hoverlabel.font.color": ink,
    };
    for (const axis of ["xaxis", "yaxis"]) {
      Object.assign(found, {
        [axis + ".gridcolor"]: grid, [axis + ".linecolor"]: rule, [axis + ".tickcolor"]: rule,
        [axis + ".zerolinecolor"]: grid,
      });
    }
    return found;
  }

  // On a dark page, lines are brighter, and dots are larger and not transparent.
  function bright(color) {
    const parts = /^#(..)(..)(..)$/.exec(color || "");
    if (!parts) { return color; }
    return "#" + parts.slice(1).map((part) => {
      const value = parseInt(part, 16);
      return Math.round(value + 0.35 * (255 - value)).toString(16).padStart(2, "0");
    }).join("");
  }

  function data(chart) {
    const made = structuredClone(chart.data);
    if (!dark.matches) { return made; }
    for (const trace of made) {
      if (trace.type === "heatmap") { continue; }
      for (const part of [trace.line, trace.marker, trace.error_x]) {
        if (part && part.color) { part.color = bright(part.color); }
      }
      if (trace.marker && trace.marker.opacity < 1) {
        Object.assign(trace.marker, { opacity: 1, size: trace.marker.size + 1 });
      }
    }
    return made;
  }

  function layout(chart) {
    const small = narrow.matches;
    const font = small ? 11 : 12;
    const made = structuredClone(chart.layout);
    for (const axis of [made.xaxis, made.yaxis]) {
      Object.assign(axis, { automargin: true, showline: true, ticks: "outside", zeroline: false });
      axis.title = Object.assign({ standoff: 8 }, axis.title);
    }
    if (small && made.meta) {
      made.xaxis.ticktext = made.meta.brief;
    }
    if (made.title) {
      made.title = Object.assign(made.title, { font: { size: font + 2 }, x: 0.5, xanchor: "center" });
    }
    return Object.assign(made, {
      font: { size: font, family: getComputedStyle(document.body).fontFamily },
      margin: { l: 8, r: 12, t: made.title ? 44 : 26, b: 8 },
      legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", x: 0.5, xanchor: "center" },
      hovermode: "closest",
      dragmode: touch ? false : "zoom",
      showlegend: chart.data.some((trace) => trace.showlegend !== false),
    });
  }

  function draw(place) {
    const chart = charts[Number(place.dataset.chart)];
    const figure = place.parentElement;
    figure.classList.add("drawn");
    try {
      const config = {
        responsive: true, displaylogo: false, displayModeBar: touch ? false : "hover",
        modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
      };
      Plotly.newPlot(place, data(chart), layout(chart), config);
      Plotly.relayout(place, themed());
      drawn.push(place);
    } catch (error) {
      figure.classList.remove("drawn");
      console.error(error);
    }
  }

  const places = document.querySelectorAll("[data-chart]");
  if ("IntersectionObserver" in window) {
    // Only what is nearly seen: a page may have a hundred charts.
    const observer = new IntersectionObserver(function (entries) {
      for (const entry of entries) {
        if (entry.isIntersecting) {
          observer.unobserve(entry.target);
          draw(entry.target.firstElementChild);
        }
      }
    }, { rootMargin: "800px" });
    places.forEach((place) => observer.observe(place.parentElement));
  } else {
    places.forEach(draw);
  }
  function again() {
    drawn.forEach(function (place) {
      const chart = charts[Number(place.dataset.chart)];
      Plotly.react(place, data(chart), layout(chart));
      Plotly.relayout(place, themed());
    });
  }

  dark.addEventListener("change", again);
  narrow.addEventListener("change", again);
})();
