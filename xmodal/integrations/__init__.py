"""Use of xmodal from other libraries; each module needs the extra that has its name."""
