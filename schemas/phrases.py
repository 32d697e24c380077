"""The quick replies that every team begins with, in English and Chinese."""

from schemas.desk import QuickReply

PHRASES = (
    QuickReply(
        id="welcome",
        title="Welcome · 欢迎",
        text=(
            "Hello, a person is here now. How can I help you?"
            " · 您好，人工客服已接入，请问有什么可以帮您？"
        ),
    ),
    QuickReply(
        id="moment",
        title="One moment · 请稍候",
        text="One moment please, I am looking into it. · 请稍候，我正在为您查询。",
    ),
    QuickReply(
        id="order",
        title="Order number · 订单号",
        text="Could you tell me your order number, please? · 请您提供一下订单号，好吗？",
    ),
    QuickReply(
        id="details",
        title="More details · 详细信息",
        text=(
            "Could you describe what happened, with a picture if you have one?"
            " · 能否请您描述一下具体情况？如有图片也请一并发送。"
        ),
    ),
    QuickReply(
        id="sorry",
        title="Apology · 致歉",
        text=(
            "I am sorry for the trouble; I will see that it is put right."
            " · 很抱歉给您带来不便，我会尽快为您处理。"
        ),
    ),
    QuickReply(
        id="colleague",
        title="To a colleague · 转接同事",
        text=(
            "A colleague knows more about this; I am handing you over."
            " · 这个问题由我的同事处理更合适，正在为您转接。"
        ),
    ),
    QuickReply(
        id="goodbye",
        title="Goodbye · 结束语",
        text=(
            "Is there anything else? If not, have a good day."
            " · 请问还有其他问题吗？如果没有，祝您生活愉快！"
        ),
    ),
)
