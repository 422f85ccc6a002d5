"""The colours and fonts of the page: Gradio's soft theme with the contrast that WCAG 2.2 requires.

The contrast is at least 4.5:1 for text and 3:1 for borders of controls; the browser tests measure it in both schemes.
"""

import gradio as gr

_BORDER, _BORDER_DARK = "*neutral_500", "*neutral_400"

THEME = gr.themes.Soft(
    font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"], primary_hue="indigo"
).set(
    body_text_color_subdued="*neutral_500",
    color_accent="*primary_600",
    block_label_text_color="*primary_700",
    block_title_text_color="*primary_700",
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_hover="*primary_700",
    checkbox_label_background_fill_selected="*primary_600",
    input_border_width="1px",
    input_border_color=_BORDER,
    input_border_color_dark=_BORDER_DARK,
    checkbox_border_color=_BORDER,
    checkbox_border_color_dark=_BORDER_DARK,
    checkbox_border_color_hover=_BORDER,
    checkbox_border_color_hover_dark=_BORDER_DARK,
    link_text_color_dark="*primary_300",
    link_text_color_hover_dark="*primary_200",
    link_text_color_visited_dark="*primary_300",
    link_text_color_active_dark="*primary_300",
    slider_color="*primary_600",
    slider_color_dark="*primary_400",
)
