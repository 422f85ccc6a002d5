"""The Gradio app, as `python app.py` and a Hugging Face Space start it. All of it is in ui/."""

if __name__ == "__main__":  # processes that the app starts import this file as well, and need no Gradio
    from ui.command import main

    main()
